//! Choosing a device: a graphics card where there is one, else the processor, which is always
//! there.

use std::sync::Arc;

use super::wgpu::{self, AdapterReport, Gpu, MatrixUse};
use super::{Device, Result, cpu};

/// Which device to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// The best graphics card, else the processor. A software driver for graphics is only used when
    /// it is named: it computes on the processor too, more slowly.
    #[default]
    Best,
    Processor,
    /// A place in the list of adapters, which the processor ends, or a part of an adapter's name,
    /// whatever the case.
    Matching(String),
}

impl Selection {
    /// As people write it: `cpu`, a number, a part of a name; nothing for the best.
    pub fn of(text: &str) -> Selection {
        match text.trim() {
            "" => Selection::Best,
            text if text.eq_ignore_ascii_case(PROCESSOR) => Selection::Processor,
            text => Selection::Matching(text.into()),
        }
    }

    /// Which it is: a place in `adapters`, or just after them the processor.
    ///
    /// # Errors
    /// A name or a number that none has.
    pub fn place(&self, adapters: &[AdapterReport]) -> Result<usize> {
        let processor = adapters.len();
        match self {
            Selection::Processor => Ok(processor),
            Selection::Best => {
                Ok(wgpu::choose(adapters, &wgpu::Selection::Card).unwrap_or(processor))
            }
            Selection::Matching(text) if text.parse() == Ok(processor) => Ok(processor),
            Selection::Matching(text) => {
                match wgpu::choose(adapters, &wgpu::Selection::Matching(text.clone())) {
                    Ok(place) => Ok(place),
                    Err(wgpu::Error::NoMatch { selector, available }) => {
                        Err(wgpu::Error::NoMatch {
                            selector,
                            available: format!("{available}, {processor}: {PROCESSOR}"),
                        }
                        .into())
                    }
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// As the processor is called where a device is chosen.
pub const PROCESSOR: &str = "cpu";

/// Opens the device that is selected.
///
/// # Errors
/// Those of [`Selection::place`]; a device that refuses.
pub fn open(selection: &Selection, matrices: MatrixUse, options: &cpu::Options) -> Result<Device> {
    let processor = || -> Result<Device> { Ok(cpu::Cpu::open(options)?.into()) };
    let gpu = |selection| -> Result<Arc<Gpu>, wgpu::Error> {
        Gpu::open(&wgpu::Options { selection, matrices, ..wgpu::Options::default() })
    };
    match selection {
        Selection::Processor => processor(),
        Selection::Best => match gpu(wgpu::Selection::Card) {
            Ok(gpu) => Ok(gpu.into()),
            Err(wgpu::Error::NoAdapter { .. }) => processor(),
            Err(error) => Err(error.into()),
        },
        Selection::Matching(_) => {
            let adapters = wgpu::list();
            match selection.place(&adapters)? {
                place if place == adapters.len() => processor(),
                place => Ok(gpu(wgpu::Selection::Matching(place.to_string()))?.into()),
            }
        }
    }
}
