//! What a program needs of the weights, staged by one thread, for which another one reads ahead,
//! while others compile kernels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::mpsc;

use super::layout::Layout;
use super::lowering::BufferView;
use super::weights::{Piece, Reserved, Weights};
use crate::backend::Result;
use crate::graph::Shape;

/// Places of weights on the device, of which some are yet to be filled.
pub(super) struct Staging<'a> {
    weights: &'a Weights,
    reserved: RefCell<Reservations>,
}

#[derive(Default)]
struct Reservations {
    by_name: HashMap<(String, Layout), usize>,
    /// In the order of their first use.
    all: Vec<Reserved>,
}

/// Pieces that are read before the ones before are on their way.
const AHEAD: usize = 2;

impl<'a> Staging<'a> {
    pub fn new(weights: &'a Weights) -> Staging<'a> {
        Staging { weights, reserved: RefCell::default() }
    }

    /// Where the weight `name` of logical `shape` is, or will be.
    pub fn locate(&self, name: &str, shape: &Shape, layout: Layout) -> Result<BufferView> {
        if let Some(view) = self.weights.known(name, layout) {
            return Ok(view);
        }
        let mut reserved = self.reserved.borrow_mut();
        let key = (name.to_string(), layout);
        if let Some(&at) = reserved.by_name.get(&key) {
            return Ok(reserved.all[at].view.clone());
        }
        let weight = self.weights.reserve(name, shape, layout)?;
        let view = weight.view.clone();
        let at = reserved.all.len();
        reserved.by_name.insert(key, at);
        reserved.all.push(weight);
        Ok(view)
    }

    /// Uploads what was located and is not there yet, while `meanwhile` runs.
    ///
    /// # Errors
    /// A weight that cannot be read, does not fit f16 or the device; those of `meanwhile`.
    pub fn finish(self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        let Staging { weights, reserved } = self;
        let waiting = reserved.into_inner().all;
        if waiting.is_empty() {
            return meanwhile();
        }
        std::thread::scope(|scope| {
            let upload = scope.spawn(|| upload(weights, &waiting));
            let met = meanwhile();
            upload.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            met
        })
    }
}

fn upload(weights: &Weights, waiting: &[Reserved]) -> Result<()> {
    std::thread::scope(|scope| {
        let (read, pieces) = mpsc::sync_channel::<Result<Piece>>(AHEAD);
        let (give_back, spare) = mpsc::channel::<Piece>();
        scope.spawn(move || {
            for weight in waiting {
                for range in weight.pieces() {
                    let mut piece = spare.try_recv().unwrap_or_default();
                    let piece = weights.read(weight, range, &mut piece).map(|()| piece);
                    let ends = piece.is_err();
                    // Nobody listens any more where an upload has failed.
                    if read.send(piece).is_err() || ends {
                        return;
                    }
                }
            }
        });
        for weight in waiting {
            // The reader sends a piece for each that is asked for, or an error that ends both.
            let mut next = || pieces.recv().unwrap_or_else(|_| Ok(Piece::default()));
            weights.upload(weight, &mut next, &mut |piece| drop(give_back.send(piece)))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::backend::Precision;
    use crate::backend::wgpu::{Gpu, Options, Selection};
    use crate::graph::{ParameterError, ParameterInfo, ParameterSource, StoredAs};

    const LONG: Duration = Duration::from_secs(60);

    /// Weights that are not read before somebody lets them.
    struct Waiting {
        begun: Mutex<Sender<()>>,
        go: Mutex<Receiver<()>>,
    }

    impl ParameterSource for Waiting {
        fn info(&self, _name: &str) -> Option<ParameterInfo> {
            Some(ParameterInfo { shape: vec![64, 4], stored: StoredAs::F32 })
        }

        fn read(&self, name: &str, _: Range<usize>, _: &mut [f32]) -> Result<(), ParameterError> {
            self.begun.lock().unwrap().send(()).unwrap();
            let waited = self.go.lock().unwrap().recv_timeout(LONG);
            let message = "kernels are compiled only once it is read".to_string();
            waited.map_err(|_| ParameterError::Read { name: name.into(), message })
        }
    }

    /// Each waits for the other: one after the other they would wait in vain.
    #[test]
    fn weights_are_read_while_kernels_are_compiled() {
        let selection = Selection::Noop(Box::default());
        let gpu = Gpu::open(&Options { selection, floor: true, ..Options::default() }).unwrap();
        let (begun, reads) = channel();
        let (allow, go) = channel();
        let source = Waiting { begun: Mutex::new(begun), go: Mutex::new(go) };
        let weights = Weights::new(gpu, Arc::new(source), Precision::AsStored);
        let staging = Staging::new(&weights);
        for name in ["a", "b"] {
            staging.locate(name, &[64, 4].into(), Layout::Panels).unwrap();
        }
        let finished = staging.finish(|| {
            for _ in 0..2 {
                reads.recv_timeout(LONG).expect("nothing is read while kernels are compiled");
                allow.send(()).unwrap();
            }
            Ok(())
        });
        finished.unwrap();
        assert!(weights.known("a", Layout::Panels).is_some());
        assert!(weights.known("b", Layout::Panels).is_some());
    }
}
