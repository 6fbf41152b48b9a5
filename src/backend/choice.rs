//! Choosing a device: a graphics card where there is one, else the processor, which is always
//! there. What is not compiled in is passed over, or missed where it is asked for.

#[cfg(feature = "cpu")]
use super::cpu;
#[cfg(feature = "wgpu")]
use super::wgpu::{self, AdapterReport, Gpu};
use super::{Device, Error, Result};

/// Which device to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// The best graphics card, else the processor. A software driver for graphics is only used when
    /// it is named, since it computes on the processor too, more slowly; or where the processor's
    /// own back end is not compiled in.
    #[default]
    Best,
    /// The processor, by its own back end.
    Processor,
    /// A place in the list of adapters, which the processor ends, or a part of an adapter's name,
    /// whatever the case.
    Matching(String),
}

/// How devices are opened: the settings of each back end that is compiled in.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For graphics adapters; its own `selection` does not count.
    #[cfg(feature = "wgpu")]
    pub wgpu: wgpu::Options,
    /// For the processor.
    #[cfg(feature = "cpu")]
    pub cpu: cpu::Options,
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

    /// Which it is: a place in `adapters` ([`wgpu::list`]), or just after them the processor.
    ///
    /// # Errors
    /// A name or a number that none has.
    #[cfg(feature = "wgpu")]
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
                    Err(wgpu::Error::NoMatch { selector, available }) => Err(Error::NoMatch {
                        selector,
                        available: format!("{available}, {processor}: {PROCESSOR}"),
                    }),
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
/// A name or a number that no device has; a back end that is not compiled in; a device that
/// refuses.
pub fn open(selection: &Selection, options: &Options) -> Result<Device> {
    match selection {
        Selection::Processor => processor(options),
        Selection::Best => best(options),
        Selection::Matching(text) => matching(text, options),
    }
}

#[cfg(feature = "cpu")]
fn processor(options: &Options) -> Result<Device> {
    Ok(cpu::Cpu::open(&options.cpu)?.into())
}

#[cfg(not(feature = "cpu"))]
fn processor(_: &Options) -> Result<Device> {
    Err(Error::NotCompiledIn { what: format!("the processor (`{PROCESSOR}`)"), feature: "cpu" })
}

#[cfg(feature = "wgpu")]
fn adapter(selection: wgpu::Selection, options: &Options) -> wgpu::Result<Device> {
    Ok(Gpu::open(&wgpu::Options { selection, ..options.wgpu.clone() })?.into())
}

#[cfg(feature = "wgpu")]
fn best(options: &Options) -> Result<Device> {
    // Software drivers stand in for the processor's own back end where that is left out.
    let any = if cfg!(feature = "cpu") { wgpu::Selection::Card } else { wgpu::Selection::Best };
    match adapter(any, options) {
        Ok(device) => Ok(device),
        Err(wgpu::Error::NoAdapter { .. }) if cfg!(feature = "cpu") => processor(options),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(feature = "wgpu"))]
fn best(options: &Options) -> Result<Device> {
    if cfg!(feature = "cpu") {
        return processor(options);
    }
    let what = "a device to compute on".to_string();
    Err(Error::NotCompiledIn { what, feature: "cpu` or `wgpu" })
}

#[cfg(feature = "wgpu")]
fn matching(text: &str, options: &Options) -> Result<Device> {
    let adapters = wgpu::list();
    match Selection::Matching(text.into()).place(&adapters)? {
        place if place == adapters.len() => processor(options),
        place => Ok(adapter(wgpu::Selection::Matching(place.to_string()), options)?),
    }
}

/// Without adapters, the processor is the first and only one in the list.
#[cfg(not(feature = "wgpu"))]
fn matching(text: &str, options: &Options) -> Result<Device> {
    match text {
        "0" => processor(options),
        _ => Err(Error::NotCompiledIn { what: format!("the adapter `{text}`"), feature: "wgpu" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        assert_eq!(Selection::of("  "), Selection::Best);
        assert_eq!(Selection::of("CPU "), Selection::Processor);
        assert_eq!(Selection::of("radeon"), Selection::Matching("radeon".into()));
    }

    #[cfg(not(feature = "cpu"))]
    #[test]
    fn a_back_end_that_is_left_out_is_missed_by_its_feature() {
        let error = Device::open(&Selection::Processor).unwrap_err().to_string();
        assert!(error.contains("`cpu`"), "{error}");
    }

    #[cfg(not(feature = "wgpu"))]
    #[test]
    fn adapters_that_are_left_out_are_missed_by_their_feature() {
        let error = Device::open(&Selection::of("radeon")).unwrap_err().to_string();
        assert!(error.contains("`wgpu`") && error.contains("radeon"), "{error}");
    }

    #[cfg(not(any(feature = "cpu", feature = "wgpu")))]
    #[test]
    fn without_back_ends_there_is_the_reference_alone() {
        let error = Device::best().unwrap_err().to_string();
        assert!(error.contains("`cpu` or `wgpu`"), "{error}");
        let reference = Device::from(crate::backend::reference::Reference::new());
        assert!(reference.is_processor());
    }
}
