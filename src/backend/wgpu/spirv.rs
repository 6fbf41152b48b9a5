//! SPIR-V of kernels with cooperative matrices, by the letter of Vulkan's memory model.
//!
//! naga declares that model for them, but leaves out what it asks for: memory operands of loads and
//! stores, and availability and visibility at barriers. An access without operands is private: a
//! driver may keep what an invocation stored in workgroup memory from all others. So the words that
//! naga writes are completed here, and handed to the driver as they are.

use std::collections::{HashMap, HashSet};

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use rspirv::binary::Assemble;
use rspirv::dr::{Instruction, Module, Operand};
use rspirv::spirv::{Decoration, MemoryAccess, MemorySemantics, Op, Scope, StorageClass, Word};

/// The SPIR-V of a kernel with bindings at `slots` of group 0, with all that Vulkan's memory model
/// asks for; with bounds checks if it is to be `checked`.
///
/// # Errors
/// A module that is not valid, or that cannot be written.
pub fn written(module: &naga::Module, slots: &[u32], checked: bool) -> Result<Vec<u32>, String> {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(module)
        .map_err(|error| error.as_inner().to_string())?;
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    // wgpu numbers a layout's bindings anew, without gaps.
    let mut slots = slots.to_vec();
    slots.sort_unstable();
    let placed = (0..).zip(slots).map(|(binding, slot)| {
        let info = spv::BindingInfo { descriptor_set: 0, binding, binding_array_size: None };
        (naga::ResourceBinding { group: 0, binding: slot }, info)
    });
    let options = spv::Options {
        // Every driver with such matrices takes it.
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        binding_map: placed.collect(),
        bounds_check_policies: BoundsCheckPolicies {
            index: policy,
            buffer: policy,
            ..Default::default()
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: checked,
        emit_int_div_checks: checked,
        ..Default::default()
    };
    ordered(&spv::write_vec(module, &info, &options, None).map_err(|error| error.to_string())?)
}

/// The words of a module of Vulkan's memory model, completed: accesses to workgroup memory, and to
/// storage where a barrier orders it, are made available and visible to others; barriers have the
/// semantics for it; what is ordered for a whole device is for its queue family, which asks for no
/// capability of its own. Arrays in workgroup memory, which the driver lays out, lose the strides
/// that naga gives them all the same.
///
/// # Errors
/// Words that are no SPIR-V.
pub fn ordered(words: &[u32]) -> Result<Vec<u32>, String> {
    let mut module = rspirv::dr::load_words(words).map_err(|error| error.to_string())?;
    let pointers = Pointers::of(&module);
    let mut constants = Constants::of(&module)?;
    let of_barriers = |instruction: &Instruction| match &instruction.operands[..] {
        [.., Operand::IdMemorySemantics(id)] => constants.values.get(id).copied().unwrap_or(0),
        _ => 0,
    };
    let barriers = module.all_inst_iter().filter(|instruction| is_barrier(instruction));
    let orders_storage =
        barriers.map(of_barriers).any(|bits| bits & MemorySemantics::UNIFORM_MEMORY.bits() != 0);
    let scope = |class| match class {
        StorageClass::Workgroup => Some(Scope::Workgroup),
        StorageClass::StorageBuffer if orders_storage => Some(Scope::QueueFamily),
        _ => None,
    };
    let blocks = module.functions.iter_mut().flat_map(|function| &mut function.blocks);
    for instruction in blocks.flat_map(|block| &mut block.instructions) {
        for operand in &mut instruction.operands {
            if let Operand::IdScope(id) = operand
                && constants.values.get(id) == Some(&(Scope::Device as u32))
            {
                *id = constants.id(Scope::QueueFamily as u32);
            }
        }
        let access = match instruction.class.opcode {
            Op::Load | Op::CooperativeMatrixLoadKHR => MemoryAccess::MAKE_POINTER_VISIBLE,
            Op::Store | Op::CooperativeMatrixStoreKHR => MemoryAccess::MAKE_POINTER_AVAILABLE,
            _ => {
                if is_barrier(instruction)
                    && let Some(Operand::IdMemorySemantics(id)) = instruction.operands.last_mut()
                    && let Some(bits) = constants.values.get(id)
                {
                    let more = MemorySemantics::MAKE_AVAILABLE | MemorySemantics::MAKE_VISIBLE;
                    *id = constants.id(bits | more.bits());
                }
                continue;
            }
        };
        let class = match instruction.operands.first() {
            Some(Operand::IdRef(pointer)) => pointers.class(*pointer),
            _ => None,
        };
        if let Some(scope) = class.and_then(scope) {
            let scope = constants.id(scope as u32);
            add_access(&mut instruction.operands, access, scope);
        }
    }
    let laid_out = pointers.laid_out_by_the_driver(&module);
    module.annotations.retain(|decoration| match decoration.operands[..] {
        [Operand::IdRef(ty), Operand::Decoration(Decoration::ArrayStride), ..] => {
            !laid_out.contains(&ty)
        }
        _ => true,
    });
    let Constants { new, next, .. } = constants;
    module.types_global_values.extend(new);
    if let Some(header) = &mut module.header {
        header.bound = next;
    }
    Ok(module.assemble())
}

fn is_barrier(instruction: &Instruction) -> bool {
    matches!(instruction.class.opcode, Op::ControlBarrier | Op::MemoryBarrier)
}

/// Adds `access` with its scope to the memory operands among `operands`.
fn add_access(operands: &mut Vec<Operand>, access: MemoryAccess, scope: Word) {
    let added = access | MemoryAccess::NON_PRIVATE_POINTER;
    let found = operands.iter_mut().find_map(|operand| match operand {
        Operand::MemoryAccess(access) => Some(access),
        _ => None,
    });
    match found {
        // Operands stand in the order of their bits: an alignment before this scope.
        Some(found) if found.contains(access) => found.insert(added),
        Some(found) => {
            found.insert(added);
            operands.push(Operand::IdScope(scope));
        }
        None => operands.extend([Operand::MemoryAccess(added), Operand::IdScope(scope)]),
    }
}

/// Storage classes of pointers.
struct Pointers {
    /// By the pointer's type.
    classes: HashMap<Word, StorageClass>,
    /// Types by values.
    types: HashMap<Word, Word>,
}

impl Pointers {
    fn of(module: &Module) -> Pointers {
        let class = |instruction: &Instruction| match instruction.operands.first() {
            Some(Operand::StorageClass(class)) if instruction.class.opcode == Op::TypePointer => {
                Some((instruction.result_id?, *class))
            }
            _ => None,
        };
        let classes = module.types_global_values.iter().filter_map(class).collect();
        let types =
            module.all_inst_iter().filter_map(|i| Some((i.result_id?, i.result_type?))).collect();
        Pointers { classes, types }
    }

    /// Arrays that stand in workgroup memory and in no struct.
    fn laid_out_by_the_driver(&self, module: &Module) -> HashSet<Word> {
        let types = &module.types_global_values;
        let refs = |instruction: &Instruction| -> Vec<Word> {
            instruction.operands.iter().filter_map(Operand::id_ref_any).collect()
        };
        let of = |op: Op| types.iter().filter(move |i| i.class.opcode == op);
        let in_structs: HashSet<Word> = of(Op::TypeStruct).flat_map(refs).collect();
        let shared = of(Op::TypePointer).filter(|i| {
            let class = i.result_id.and_then(|id| self.classes.get(&id));
            class == Some(&StorageClass::Workgroup)
        });
        shared.flat_map(refs).filter(|ty| !in_structs.contains(ty)).collect()
    }

    fn class(&self, pointer: Word) -> Option<StorageClass> {
        self.classes.get(self.types.get(&pointer)?).copied()
    }
}

/// Constants of unsigned numbers, those of the module and new ones.
struct Constants {
    ty: Word,
    values: HashMap<Word, u32>,
    ids: HashMap<u32, Word>,
    new: Vec<Instruction>,
    next: Word,
}

impl Constants {
    fn of(module: &Module) -> Result<Constants, String> {
        let next = module.header.as_ref().ok_or("the SPIR-V has no header")?.bound;
        let unsigned = [Operand::LiteralBit32(32), Operand::LiteralBit32(0)];
        let ty = module
            .types_global_values
            .iter()
            .find(|i| i.class.opcode == Op::TypeInt && i.operands == unsigned)
            .and_then(|i| i.result_id)
            .ok_or("the SPIR-V has no unsigned numbers")?;
        let value = |i: &Instruction| match i.operands[..] {
            [Operand::LiteralBit32(value)]
                if i.class.opcode == Op::Constant && i.result_type == Some(ty) =>
            {
                Some((i.result_id?, value))
            }
            _ => None,
        };
        let values: HashMap<Word, u32> =
            module.types_global_values.iter().filter_map(value).collect();
        let ids = values.iter().map(|(&id, &value)| (value, id)).collect();
        Ok(Constants { ty, values, ids, new: Vec::new(), next })
    }

    /// The constant of that value.
    fn id(&mut self, value: u32) -> Word {
        *self.ids.entry(value).or_insert_with(|| {
            let id = self.next;
            self.next += 1;
            self.values.insert(id, value);
            let operands = vec![Operand::LiteralBit32(value)];
            self.new.push(Instruction::new(Op::Constant, Some(self.ty), Some(id), operands));
            id
        })
    }
}
