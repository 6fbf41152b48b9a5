//! What the fused text encoders make of the prompts of lessons, on disk: of many concepts it would
//! fill the memory.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::{self, DType, TensorFile, TensorView};

use super::base::Runner;
use super::spatial::ReadPrompt;
use super::{Error, Result};

/// What the names of summaries begin with.
const POOLED: &str = "pooled.";

/// The encodings of one teacher's prompts.
pub(super) struct Encodings {
    file: TensorFile,
    /// Numbers of one encoding.
    size: usize,
}

impl Encodings {
    /// Writes what was read of prompts, each by its name.
    pub fn write(
        path: &Path,
        runner: &Runner,
        prompts: impl Iterator<Item = Result<(String, ReadPrompt)>>,
    ) -> Result<Encodings> {
        let width = runner.base.model.text_width();
        let (mut tensors, mut size) = (Vec::new(), 0);
        for prompt in prompts {
            let (name, ReadPrompt { rows, pooled }) = prompt?;
            let tokens = rows.first().map_or(0, |row| row.len() / width.max(1));
            let bytes: Vec<u8> = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
            tensors.extend(
                TensorView::new(DType::F32, vec![rows.len(), tokens, width], bytes)
                    .map(|view| (name.clone(), view)),
            );
            if !pooled.is_empty() {
                let bytes: Vec<u8> = pooled.iter().flat_map(|v| v.to_le_bytes()).collect();
                let view = TensorView::new(DType::F32, vec![pooled.len()], bytes);
                tensors.extend(view.map(|view| (format!("{POOLED}{name}"), view)));
            }
            size = tokens * width;
        }
        checkpoint::write(path, &tensors, &BTreeMap::new())?;
        Ok(Encodings { file: TensorFile::open(path)?, size })
    }

    /// The summary of prompt `name`; empty where there is none.
    pub fn pooled(&self, name: &str) -> Vec<f32> {
        let view = self.file.tensor(&format!("{POOLED}{name}"));
        view.map_or(Vec::new(), |view| view.to_f32(0..view.len()))
    }

    /// What cross-attention `number` reads of prompt `name`; zeros where there is none.
    pub fn read(&self, name: Option<&str>, number: usize, into: &mut Vec<f32>) -> Result<()> {
        let Some(name) = name else {
            into.resize(into.len() + self.size, 0.0);
            return Ok(());
        };
        let view = self
            .file
            .tensor(name)
            .ok_or_else(|| Error::file(self.file.path(), format!("`{name}` is missing")))?;
        let copy = number.min((view.len() / self.size.max(1)).saturating_sub(1));
        into.extend(view.to_f32(copy * self.size..(copy + 1) * self.size));
        Ok(())
    }
}
