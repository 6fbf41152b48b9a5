//! Functions: the entry point with what is built in, and calls of others.

use std::rc::Rc;

use naga::valid::FunctionInfo;
use naga::{Binding, BuiltIn, Function, TypeInner};

use super::machine::{Frame, Machine};
use super::values::{Data, Value};
use super::{Refusal, called};

impl<'m> Machine<'m, '_> {
    /// The workgroup that is set.
    pub fn run_group(&mut self) -> Result<(), Refusal> {
        let module = self.module;
        let function = &module.entry_points[0].function;
        let mut arguments = Vec::with_capacity(function.arguments.len());
        for argument in &function.arguments {
            let data = match (&argument.binding, self.types.inner(argument.ty)) {
                (Some(binding), _) => self.built_in(binding)?,
                (None, TypeInner::Struct { members, .. }) => {
                    let each = members.iter().map(|member| match &member.binding {
                        Some(binding) => Ok(Rc::new(self.built_in(binding)?)),
                        None => Err(Refusal("an argument is not built in".into())),
                    });
                    Data::joined(&each.collect::<Result<Vec<_>, _>>()?, self.lanes)
                }
                _ => return Err(Refusal("an argument is not built in".into())),
            };
            arguments.push(Value::Data(Rc::new(data)));
        }
        let all: Vec<u32> = (0..self.lanes as u32).collect();
        let info = self.info.get_entry_point(0);
        self.call(function, info, arguments, all).map(|_| ())
    }

    /// What an entry point is told of each invocation.
    fn built_in(&self, binding: &Binding) -> Result<Data, Refusal> {
        let [width, height, _] = self.module.entry_points[0].workgroup_size;
        let lanes = self.lanes as u32;
        let local = |lane: u32| [lane % width, lane / width % height, lane / (width * height)];
        let size = self.module.entry_points[0].workgroup_size;
        let each =
            |f: &dyn Fn(u32) -> u32| Data { bits: (0..lanes).map(f).collect(), uniform: false };
        let vector = |f: &dyn Fn(u32, usize) -> u32| Data {
            bits: (0..3).flat_map(|axis| (0..lanes).map(move |lane| f(lane, axis))).collect(),
            uniform: false,
        };
        let subgroup = self.options.subgroup.max(1);
        let Binding::BuiltIn(built_in) = binding else {
            return Err(Refusal("an argument is not built in".into()));
        };
        Ok(match built_in {
            BuiltIn::LocalInvocationIndex => each(&|lane| lane),
            BuiltIn::LocalInvocationId => vector(&|lane, axis| local(lane)[axis]),
            BuiltIn::GlobalInvocationId => vector(&|lane, axis| {
                self.group[axis].wrapping_mul(size[axis]).wrapping_add(local(lane)[axis])
            }),
            BuiltIn::WorkGroupId => Data::uniform(self.group.to_vec()),
            BuiltIn::NumWorkGroups => Data::uniform(self.grid().to_vec()),
            BuiltIn::WorkGroupSize => Data::uniform(size.to_vec()),
            BuiltIn::SubgroupSize => Data::uniform(vec![subgroup]),
            BuiltIn::SubgroupInvocationId => each(&|lane| lane % subgroup),
            BuiltIn::SubgroupId => each(&|lane| lane / subgroup),
            BuiltIn::NumSubgroups => Data::uniform(vec![lanes.div_ceil(subgroup)]),
            other => {
                return Err(Refusal(format!("{} is nothing of compute shaders", called(&other))));
            }
        })
    }

    /// Executes a function for the invocations `active`.
    pub fn call(
        &mut self,
        function: &'m Function,
        info: &'m FunctionInfo,
        arguments: Vec<Value>,
        active: Vec<u32>,
    ) -> Result<Option<Data>, Refusal> {
        if self.frames.len() > 64 {
            return Err(Refusal("calls are nested too deeply".into()));
        }
        self.frames.push(Frame {
            function,
            info,
            values: vec![None; function.expressions.len()],
            arguments,
            locals: Vec::with_capacity(function.local_variables.len()),
            breaks: Vec::new(),
            continues: Vec::new(),
            result: None,
        });
        for (_, variable) in function.local_variables.iter() {
            let data = match variable.init {
                Some(init) => (*self.data(init, &active)?).clone(),
                None => {
                    let scalars = self.types.flat(variable.ty)?.len() as usize;
                    Data::uniform(vec![0; scalars])
                }
            };
            self.frame()?.locals.push(data);
        }
        self.block(&function.body, active)?;
        Ok(self.frames.pop().and_then(|frame| frame.result))
    }

    /// Keeps what the invocations `active` return.
    pub fn keep_result(&mut self, data: &Data, active: &[u32]) -> Result<(), Refusal> {
        let lanes = self.lanes;
        let components = data.components(lanes);
        let frame = self.frame()?;
        let result = frame
            .result
            .get_or_insert_with(|| Data { bits: vec![0; components * lanes], uniform: false });
        for component in 0..components {
            for &lane in active {
                let lane = lane as usize;
                result.bits[component * lanes + lane] = data.at(component, lane, lanes);
            }
        }
        Ok(())
    }
}
