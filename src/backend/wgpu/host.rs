//! Weights in the host's memory, as the device has them, for programs that bring them anew in each
//! run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::layout::Layout;
use super::lowering::BufferView;

/// A weight: what it is on the device but for its place there, and its bytes.
#[derive(Clone)]
pub(super) struct OnHost {
    /// The slice is of no account.
    pub form: BufferView,
    pub bytes: Arc<Vec<u8>>,
}

/// All that are kept, shared by all programs of their store.
#[derive(Default)]
pub(super) struct HostWeights(Mutex<HashMap<(String, Layout), OnHost>>);

impl HostWeights {
    pub fn get(&self, key: &(String, Layout)) -> Option<OnHost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub fn put(&self, key: (String, Layout), weight: OnHost) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, weight);
    }

    /// Gives up all that are not wanted.
    pub fn keep(&self, wanted: &dyn Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(name, _), _| wanted(name));
    }
}
