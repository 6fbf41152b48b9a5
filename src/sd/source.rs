//! The weights of a checkpoint's network, as graphs ask for them.

use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::{Component, DType};
use crate::graph::{ParameterError, ParameterInfo, ParameterSource, Quant, StoredAs};

/// A [`Component`] as a [`ParameterSource`]: read in pieces from the mapped file, whose pages go
/// once a parameter is used.
#[derive(Clone, Debug)]
pub struct ComponentSource(pub Component);

impl ParameterSource for ComponentSource {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        // Weights of fewer bits fit into f16.
        let stored = match self.0.dtype(name)?.widened() {
            DType::F16 => StoredAs::F16,
            DType::BF16 => StoredAs::BF16,
            _ => StoredAs::F32,
        };
        Some(ParameterInfo { shape: self.0.shape(name)?.to_vec(), stored })
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        let failed = |message: String| ParameterError::Read { name: name.into(), message };
        let view = self.0.tensor(name).map_err(|e| failed(e.to_string()))?;
        if range.end > view.len() || range.len() != into.len() {
            return Err(failed(format!("elements {range:?} of {} were asked for", view.len())));
        }
        view.write_f32(range, into);
        Ok(())
    }

    fn quant(&self, name: &str) -> Option<Quant> {
        self.0.quant(name)
    }

    fn read_blocks(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [u8],
    ) -> Result<(), ParameterError> {
        let failed = |message: String| ParameterError::Read { name: name.into(), message };
        let view = self.0.tensor(name).map_err(|e| failed(e.to_string()))?;
        let quant = self.0.quant(name).ok_or_else(|| failed("it is not in blocks".into()))?;
        let blocks = view.bytes().get(quant.bytes(range.start)..quant.bytes(range.end));
        match blocks.filter(|blocks| blocks.len() == into.len()) {
            Some(blocks) => into.copy_from_slice(blocks),
            None => return Err(failed(format!("{range:?} of {} were asked for", view.len()))),
        }
        Ok(())
    }

    fn done_with(&self, name: &str) {
        self.0.release(name);
    }
}

/// The weights of several networks whose parameters have different names, or are told apart by what
/// their names begin with.
#[derive(Clone, Debug)]
pub struct Together(Vec<(String, ComponentSource)>);

impl Together {
    pub fn of<'a>(components: impl IntoIterator<Item = &'a Component>) -> Together {
        let source = |component: &Component| (String::new(), ComponentSource(component.clone()));
        Together(components.into_iter().map(source).collect())
    }

    /// One more network, whose names are to begin with `prefix`, its dot included.
    pub fn with(mut self, prefix: &str, component: &Component) -> Together {
        self.0.push((prefix.to_string(), ComponentSource(component.clone())));
        self
    }

    /// Who has a parameter, and what it is called there.
    fn holder<'n>(&self, name: &'n str) -> Option<(&ComponentSource, &'n str)> {
        self.0.iter().find_map(|(prefix, source)| {
            let own = name.strip_prefix(prefix.as_str())?;
            source.info(own).map(|_| (source, own))
        })
    }

    fn required<'a>(&self, name: &'a str) -> Result<(&ComponentSource, &'a str), ParameterError> {
        self.holder(name).ok_or_else(|| ParameterError::Missing { name: name.into() })
    }
}

impl ParameterSource for Together {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        self.holder(name).and_then(|(source, own)| source.info(own))
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        let (source, own) = self.required(name)?;
        source.read(own, range, into)
    }

    fn quant(&self, name: &str) -> Option<Quant> {
        self.holder(name).and_then(|(source, own)| source.quant(own))
    }

    fn read_blocks(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [u8],
    ) -> Result<(), ParameterError> {
        let (source, own) = self.required(name)?;
        source.read_blocks(own, range, into)
    }

    fn done_with(&self, name: &str) {
        if let Some((source, own)) = self.holder(name) {
            source.done_with(own);
        }
    }
}

/// One network among several: its own names for what is in `prefix`.
pub struct Within<'s> {
    pub source: &'s (dyn ParameterSource + Send),
    pub prefix: &'static str,
}

impl Within<'_> {
    fn full(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }
}

impl ParameterSource for Within<'_> {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        self.source.info(&self.full(name))
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        self.source.read(&self.full(name), range, into)
    }

    fn quant(&self, name: &str) -> Option<Quant> {
        self.source.quant(&self.full(name))
    }

    fn read_blocks(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [u8],
    ) -> Result<(), ParameterError> {
        self.source.read_blocks(&self.full(name), range, into)
    }

    fn done_with(&self, name: &str) {
        self.source.done_with(&self.full(name));
    }
}

/// Weights that are stored as differences from those of another network, and whole where that has
/// none of their name.
pub struct Difference {
    pub stored: ComponentSource,
    pub base: Arc<dyn ParameterSource + Send>,
}

impl ParameterSource for Difference {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        self.stored.info(name)
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        self.stored.read(name, range.clone(), into)?;
        let Some(info) = self.base.info(name) else { return Ok(()) };
        let found = self.stored.info(name).map_or_else(Vec::new, |info| info.shape);
        let sides =
            |shape: &[usize]| shape.iter().copied().filter(|side| *side != 1).collect::<Vec<_>>();
        if sides(&found) != sides(&info.shape) {
            return Err(ParameterError::Shape { name: name.into(), expected: info.shape, found });
        }
        let mut base = vec![0.0; into.len()];
        self.base.read(name, range, &mut base)?;
        into.iter_mut().zip(base).for_each(|(value, base)| *value += base);
        Ok(())
    }

    fn done_with(&self, name: &str) {
        self.stored.done_with(name);
        self.base.done_with(name);
    }
}
