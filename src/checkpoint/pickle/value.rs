//! What a pickle may hold.
use super::DType;
use std::rc::Rc;

/// A dictionary's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Text(Rc<str>),
    Int(i64),
}

/// A value. What holds others is a number in [`Heap`], so that neither depth nor cycles can hurt;
/// what is large is shared, so that a copy costs the same for all.
#[derive(Clone, Debug)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Little-endian bytes of a number beyond 64 bits.
    Long(Rc<[u8]>),
    Float(f64),
    Text(Rc<str>),
    /// Bytes mean nothing here.
    Bytes,
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
    /// What trainers keep beside a model, which means nothing here: nothing of it is made.
    Ignored,
}

/// The names that a pickle may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`, and the older one without the last two arguments.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3`, which is told the type.
    RebuildTyped,
    /// `torch._utils._rebuild_parameter`: a tensor with a flag.
    RebuildParameter,
    Size,
    /// `set`, which holds nothing here.
    Set,
    /// `torch.nn.ParameterDict`, read as a dictionary.
    ParameterDict,
    StorageType(DType),
    TensorType(DType),
    /// A class or function of a trainer's, by its name alone.
    Ignored,
}

/// Where elements are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    pub key: String,
    pub dtype: DType,
    pub elements: usize,
}

/// A view of a storage; extents in elements of its own type.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub storage: Rc<Storage>,
    pub dtype: DType,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// The lists (tuples are lists too) and dictionaries of a pickle.
#[derive(Debug, Default)]
pub struct Heap {
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Key, Value)>>,
}

impl Heap {
    pub fn new_list(&mut self, items: Vec<Value>) -> usize {
        self.lists.push(items);
        self.lists.len() - 1
    }

    pub fn new_dict(&mut self) -> usize {
        self.dicts.push(Vec::new());
        self.dicts.len() - 1
    }

    /// Items of a list or tuple.
    pub fn list(&self, number: usize) -> &[Value] {
        self.lists.get(number).map_or(&[], |items| items)
    }

    pub fn extend(&mut self, number: usize, items: Vec<Value>) {
        if let Some(list) = self.lists.get_mut(number) {
            list.extend(items);
        }
    }

    pub fn dict(&self, number: usize) -> &[(Key, Value)] {
        self.dicts.get(number).map_or(&[], |entries| entries)
    }

    pub fn insert(&mut self, number: usize, key: Key, value: Value) {
        if let Some(dict) = self.dicts.get_mut(number) {
            dict.push((key, value));
        }
    }
}
