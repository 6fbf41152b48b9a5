//! The pickle machine, as far as tensors need it.
use super::budget::Budget;
use super::value::{Global, Heap, Key, Storage, Tensor, Value};
use super::{DType, storage_type, tensor_type};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

/// Runs pickles that stand one after another. Nothing but the values of [`Value`] can come into
/// being: a global other than those of [`Global`] ends the run, and only `torch`'s rebuilding of
/// tensors, an `OrderedDict` and a `set` can be called; a `ParameterDict` is read as a dictionary.
pub struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    storages: BTreeMap<String, Rc<Storage>>,
    heap: Heap,
    budget: Budget,
    /// Dictionaries that stand for a `ParameterDict`.
    holders: HashSet<usize>,
}

/// Arguments of a call; no function of torch's has more.
const MOST_ARGUMENTS: usize = 16;
/// Dimensions of a tensor, as torch itself has it.
const MOST_DIMENSIONS: usize = 64;
/// Of a name that an error quotes.
const MOST_QUOTED: usize = 100;

type Result<T> = std::result::Result<T, String>;

impl<'a> Machine<'a> {
    /// A machine for the pickles at the beginning of `bytes`, that may spend what `budget` has.
    pub fn new(bytes: &'a [u8], budget: Budget) -> Self {
        Machine {
            rest: bytes,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            storages: BTreeMap::new(),
            heap: Heap::default(),
            budget,
            holders: HashSet::new(),
        }
    }

    /// What follows the pickles that have run.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The storages that tensors were made of.
    pub fn storages(&self) -> impl Iterator<Item = &Rc<Storage>> {
        self.storages.values()
    }

    /// Where the lists and dictionaries are.
    pub fn heap(&self) -> &Heap {
        &self.heap
    }

    /// The lists and dictionaries, and what is left to spend.
    pub fn finish(self) -> (Heap, Budget) {
        (self.heap, self.budget)
    }

    /// Runs one pickle.
    pub fn run(&mut self) -> Result<Value> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            // An operation makes, moves or copies one value; those that do so with more are charged
            // where they do.
            self.budget.values(1)?;
            let [code] = self.take()?;
            match code {
                b'.' => return self.pop(),
                // PROTO, FRAME
                0x80 => drop(self.take::<1>()?),
                0x95 => drop(self.take::<8>()?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.items()?),
                b'2' => self.duplicate()?,
                b'N' => self.stack.push(Value::None),
                0x88 => self.stack.push(Value::Bool(true)),
                0x89 => self.stack.push(Value::Bool(false)),
                b'K' | b'M' | b'J' | 0x8a | 0x8b | b'G' => self.number(code)?,
                b'X' | 0x8c | 0x8d | b'T' | b'U' => self.text(code)?,
                b'B' | b'C' | 0x8e => {
                    let length = self.length(match code {
                        b'B' => 4,
                        b'C' => 1,
                        _ => 8,
                    })?;
                    self.bytes(length)?;
                    self.stack.push(Value::Bytes);
                }
                b']' => self.push_list(Vec::new())?,
                b'}' => self.push_dict(),
                b')' => self.push_tuple(Vec::new())?,
                b't' => {
                    let items = self.items()?;
                    self.push_tuple(items)?;
                }
                0x85..=0x87 => {
                    let count = usize::from(code - 0x84);
                    let start = self
                        .stack
                        .len()
                        .checked_sub(count)
                        .filter(|start| *start >= self.floor())
                        .ok_or_else(underflow)?;
                    let items = self.stack.split_off(start);
                    self.push_tuple(items)?;
                }
                b'l' => {
                    let items = self.items()?;
                    self.push_list(items)?;
                }
                b'd' => {
                    let items = self.items()?;
                    self.push_dict();
                    self.set_items(items)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.items()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.items()?;
                    self.set_items(items)?;
                }
                b'q' | b'r' => {
                    let index = self.index(code == b'r')?;
                    self.memo.insert(index, self.top()?.clone());
                }
                0x94 => drop(self.memo.insert(self.memo.len() as u32, self.top()?.clone())),
                b'h' | b'j' => {
                    let index = self.index(code == b'j')?;
                    let value =
                        self.memo.get(&index).ok_or("it refers to a value that is not there")?;
                    self.stack.push(value.clone());
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.stack.push(Value::Global(global(module, name)?));
                }
                0x93 => {
                    let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?)
                    else {
                        return Err("a global's name is no text".into());
                    };
                    self.stack.push(Value::Global(global(&module, &name)?));
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(&id)?;
                    self.stack.push(storage);
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.call(&function, &arguments)?;
                }
                // The attributes of an OrderedDict (torch's `_metadata`) mean nothing here; of a
                // module they are the tensors.
                b'b' => {
                    let state = self.pop()?;
                    match *self.top()? {
                        Value::Dict(target) => self.take_parameters(target, &state)?,
                        Value::Ignored => {}
                        _ => {
                            return Err(
                                "it sets attributes of something other than a dictionary".into()
                            );
                        }
                    }
                }
                // NEWOBJ: only the empty holder of tensors that older textual inversions are in.
                0x81 => {
                    let (arguments, class) = (self.pop()?, self.pop()?);
                    self.holder(&class, &arguments)?;
                }
                other => {
                    return Err(format!(
                        "it uses the pickle operation 0x{other:02x}, which tensors do not need"
                    ));
                }
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(super::cut_off)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.rest.get(..count).ok_or_else(super::cut_off)?;
        self.rest = &self.rest[count..];
        Ok(taken)
    }

    /// A length of so many bytes.
    fn length(&mut self, width: usize) -> Result<usize> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.bytes(width)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| super::cut_off())
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|b| *b == b'\n').ok_or_else(super::cut_off)?;
        let line = self.bytes(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| "a name is no text".into())
    }

    fn index(&mut self, long: bool) -> Result<u32> {
        Ok(self.length(if long { 4 } else { 1 })? as u32)
    }

    fn number(&mut self, code: u8) -> Result<()> {
        let value = match code {
            b'K' => Value::Int(self.take::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.take()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.take()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.take()?)),
            _ => {
                let length = self.length(if code == 0x8a { 1 } else { 4 })?;
                let bytes = self.bytes(length)?;
                match bytes.last() {
                    None => Value::Int(0),
                    Some(last) if bytes.len() <= 8 => {
                        let mut wide = [if last & 0x80 == 0 { 0 } else { 0xff }; 8];
                        wide[..bytes.len()].copy_from_slice(bytes);
                        Value::Int(i64::from_le_bytes(wide))
                    }
                    Some(_) => {
                        self.budget.bytes(bytes.len())?;
                        Value::Long(bytes.into())
                    }
                }
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, code: u8) -> Result<()> {
        let length = self.length(match code {
            0x8c | b'U' => 1,
            0x8d => 8,
            _ => 4,
        })?;
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| "a text is not UTF-8")?;
        self.budget.bytes(text.len())?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    /// The stack's bottom, as seen from within the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value> {
        if self.stack.len() <= self.floor() {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    fn top(&self) -> Result<&Value> {
        self.stack.last().ok_or_else(underflow)
    }

    fn duplicate(&mut self) -> Result<()> {
        let top = self.top()?.clone();
        self.stack.push(top);
        Ok(())
    }

    /// Everything above the last mark.
    fn items(&mut self) -> Result<Vec<Value>> {
        let mark =
            self.marks.pop().filter(|mark| *mark <= self.stack.len()).ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Value>) -> Result<()> {
        match *self.top()? {
            Value::List(list) => {
                self.budget.values(items.len())?;
                self.heap.extend(list, items);
            }
            Value::Ignored => {}
            _ => return Err("it appends to something other than a list".into()),
        }
        Ok(())
    }

    fn push_list(&mut self, items: Vec<Value>) -> Result<()> {
        self.budget.values(items.len())?;
        let list = self.heap.new_list(items);
        self.stack.push(Value::List(list));
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Value>) -> Result<()> {
        self.budget.values(items.len())?;
        let tuple = self.heap.new_list(items);
        self.stack.push(Value::Tuple(tuple));
        Ok(())
    }

    fn push_dict(&mut self) {
        let dict = self.heap.new_dict();
        self.stack.push(Value::Dict(dict));
    }

    /// Sets keys and values, one after another, in the dictionary on top.
    fn set_items(&mut self, items: Vec<Value>) -> Result<()> {
        let dict = match *self.top()? {
            Value::Dict(dict) => dict,
            Value::Ignored => return Ok(()),
            _ => return Err("it sets items of something other than a dictionary".into()),
        };
        self.budget.values(items.len())?;
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            let key = match key {
                Value::Text(text) => Key::Text(text),
                Value::Int(number) => Key::Int(number),
                // Trainers keep the states of their helpers by class.
                Value::Ignored | Value::Global(Global::Ignored) => continue,
                _ => return Err("a dictionary's key is neither a text nor a number".into()),
            };
            self.heap.insert(dict, key, value);
        }
        Ok(())
    }

    fn call(&mut self, function: &Value, arguments: &Value) -> Result<()> {
        let (Value::Global(function), Value::Tuple(arguments)) = (function, arguments) else {
            return Err("it calls something that cannot be called".into());
        };
        if *function == Global::Ignored {
            self.stack.push(Value::Ignored);
            return Ok(());
        }
        let arguments = self.heap.list(*arguments);
        if arguments.len() > MOST_ARGUMENTS {
            return Err(format!("it calls {function:?} with {} arguments", arguments.len()));
        }
        let arguments = arguments.to_vec();
        match (function, &arguments[..]) {
            (Global::OrderedDict, []) => self.push_dict(),
            // A module's attributes have empty sets.
            (Global::Set, [] | [Value::List(_)]) => self.push_list(Vec::new())?,
            (Global::OrderedDict, [Value::List(pairs)]) => {
                let pairs = self.heap.list(*pairs);
                // Each pair is copied with its two values.
                self.budget.values(pairs.len().saturating_mul(3))?;
                let pairs = pairs.to_vec();
                self.push_dict();
                for pair in pairs {
                    match pair {
                        Value::Tuple(pair) | Value::List(pair)
                            if self.heap.list(pair).len() == 2 =>
                        {
                            self.set_items(self.heap.list(pair).to_vec())?;
                        }
                        _ => return Err("an OrderedDict is not made of pairs".into()),
                    }
                }
            }
            (
                Global::RebuildTensor | Global::RebuildTyped,
                [Value::Storage(storage), Value::Int(offset), shape, strides, ..],
            ) => {
                let (shape, strides) = (self.extents(shape)?, self.extents(strides)?);
                let (Ok(offset), Some(shape), Some(strides)) =
                    (usize::try_from(*offset), shape, strides)
                else {
                    return Err("a tensor's shape is not made of sizes".into());
                };
                if shape.len() != strides.len() {
                    return Err(format!("a tensor has shape {shape:?} but strides {strides:?}"));
                }
                let dtype = match (function, arguments.get(6)) {
                    (Global::RebuildTyped, Some(Value::Global(Global::TensorType(dtype)))) => {
                        *dtype
                    }
                    (Global::RebuildTyped, _) => {
                        return Err("a tensor's type is not one of torch's".into());
                    }
                    _ => storage.dtype,
                };
                let tensor = Tensor { storage: storage.clone(), dtype, offset, shape, strides };
                self.stack.push(Value::Tensor(Rc::new(tensor)));
            }
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => {
                self.stack.push(tensor.clone())
            }
            (Global::Size, [size @ Value::Tuple(_)]) => self.stack.push(size.clone()),
            _ => return Err(format!("it calls {function:?} with other arguments than torch does")),
        }
        Ok(())
    }

    /// A `ParameterDict` before its attributes are set. Nothing of the class is run: here it is a
    /// dictionary.
    fn holder(&mut self, class: &Value, arguments: &Value) -> Result<()> {
        match (class, arguments) {
            (Value::Global(Global::Ignored), _) => {
                self.stack.push(Value::Ignored);
                Ok(())
            }
            (Value::Global(Global::ParameterDict), Value::Tuple(items))
                if self.heap.list(*items).is_empty() =>
            {
                self.push_dict();
                if let Value::Dict(dict) = *self.top()? {
                    self.holders.insert(dict);
                }
                Ok(())
            }
            (Value::Global(class), _) => {
                Err(format!("it makes an object of {class:?}, which no file of tensors needs"))
            }
            _ => Err("it makes an object of something that is no class".into()),
        }
    }

    /// Of a holder's attributes only its tensors count: they are under `_parameters`.
    fn take_parameters(&mut self, target: usize, state: &Value) -> Result<()> {
        let Value::Dict(state) = state else { return Ok(()) };
        if !self.holders.contains(&target) {
            return Ok(());
        }
        let is_parameters = |key: &Key| matches!(key, Key::Text(text) if &**text == "_parameters");
        let found = self.heap.dict(*state).iter().find(|(key, _)| is_parameters(key));
        let Some((_, Value::Dict(parameters))) = found else { return Ok(()) };
        let parameters = self.heap.dict(*parameters);
        self.budget.values(parameters.len().saturating_mul(2))?;
        let parameters = parameters.to_vec();
        for (key, value) in parameters {
            self.heap.insert(target, key, value);
        }
        Ok(())
    }

    /// The sizes in a tuple; none where it is not made of sizes.
    fn extents(&mut self, value: &Value) -> Result<Option<Vec<usize>>> {
        let Value::Tuple(values) = value else { return Ok(None) };
        let values = self.heap.list(*values);
        if values.len() > MOST_DIMENSIONS {
            return Err(format!("a tensor has {} dimensions", values.len()));
        }
        self.budget.values(values.len())?;
        let one = |value: &Value| match value {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        };
        Ok(values.iter().map(one).collect())
    }

    /// A persistent id: `("storage", type, key, device, elements, ..)`; before torch 1.6 also a
    /// module's class with its source text, `("module", class, file, text)`.
    fn storage(&mut self, id: &Value) -> Result<Value> {
        let Value::Tuple(parts) = id else {
            return Err("a storage is not named as torch does".into());
        };
        let parts = self.heap.list(*parts);
        if let [Value::Text(kind), class @ Value::Global(Global::ParameterDict), ..] = parts
            && &**kind == "module"
        {
            return Ok(class.clone());
        }
        let [
            Value::Text(kind),
            Value::Global(Global::StorageType(dtype)),
            Value::Text(key),
            _,
            Value::Int(elements),
            ..,
        ] = parts
        else {
            return Err("a storage is not named as torch does".into());
        };
        let elements = usize::try_from(*elements).map_err(|_| "a storage has a negative size")?;
        if &**kind != "storage" || matches!(parts.get(5), Some(Value::Tuple(_))) {
            return Err("a storage is not named as torch does".into());
        }
        match self.storages.get(&**key) {
            Some(known) if known.dtype == *dtype && known.elements == elements => {
                Ok(Value::Storage(known.clone()))
            }
            Some(_) => Err(format!("the storage `{}` is described in two ways", quoted(key))),
            None => {
                self.budget.bytes(2 * key.len())?;
                let storage = Rc::new(Storage { key: key.to_string(), dtype: *dtype, elements });
                self.storages.insert(storage.key.clone(), storage.clone());
                Ok(Value::Storage(storage))
            }
        }
    }
}

/// What trainers leave in a checkpoint beside the model: states of their helpers, settings, and
/// numbers of NumPy's. It is passed over by its name; nothing of it is run.
fn is_trainers(module: &str, name: &str) -> bool {
    const ROOTS: [&str; 5] =
        ["pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "numpy"];
    let root = module.split('.').next().unwrap_or_default();
    ROOTS.contains(&root)
        || [("_codecs", "encode"), ("argparse", "Namespace"), ("collections", "defaultdict")]
            .contains(&(module, name))
}

fn underflow() -> String {
    "the pickle takes values that it never made".into()
}

/// The beginning of a name, if it is very long.
fn quoted(name: &str) -> String {
    match name.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_string(),
    }
}

fn global(module: &str, name: &str) -> Result<Global> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("__builtin__" | "builtins", "set") => Global::Set,
        ("torch.nn.modules.container", "ParameterDict") => Global::ParameterDict,
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTyped,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch.storage", "UntypedStorage") => Global::StorageType(DType::U8),
        ("torch", "Size") => Global::Size,
        ("torch", name) if storage_type(name).is_some() => {
            return storage_type(name).map(Global::StorageType).ok_or_else(underflow);
        }
        ("torch", name) if tensor_type(name).is_some() => {
            return tensor_type(name).map(Global::TensorType).ok_or_else(underflow);
        }
        (module, name) if is_trainers(module, name) => Global::Ignored,
        _ => {
            return Err(format!(
                "it names the Python object `{}.{}`, which no file of tensors needs: it could run \
                    code, so it is not read",
                quoted(module),
                quoted(name)
            ));
        }
    })
}
