//! Choosing among the adapters that there are, and where there is none.

use mixofshow::backend::wgpu::{Error, Gpu, Options, Selection, list};

use super::alone;

fn open(selection: Selection) -> Result<String, Error> {
    Gpu::open(&Options { selection, ..Options::default() }).map(|gpu| gpu.name().to_string())
}

#[test]
fn adapters_by_name_and_by_number() {
    let all = list();
    assert!(!all.is_empty());
    for (index, adapter) in all.iter().enumerate() {
        assert_eq!(adapter.index, index);
        assert_eq!(open(Selection::Matching(index.to_string())).unwrap(), adapter.name);
        let part: String = adapter.name.chars().take(5).collect();
        assert!(open(Selection::Matching(part.to_uppercase())).unwrap().starts_with(&part));
        assert!(
            adapter.max_binding >= 128 << 20
                && adapter.workgroup_memory >= 16 << 10
                && adapter.storage_buffers >= 8
        );
    }
    assert!(all.iter().any(|adapter| adapter.name == open(Selection::Best).unwrap()));
}

#[test]
fn an_adapter_that_is_not_there() {
    for selector in ["no such card", "9999", "-1"] {
        let error = open(Selection::Matching(selector.into())).unwrap_err();
        assert!(matches!(error, Error::NoMatch { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains(selector)
                && list().iter().all(|adapter| message.contains(&adapter.name)),
            "{message}"
        );
    }
}

/// A process that finds no driver says what to install.
#[cfg(target_os = "linux")]
#[test]
fn no_adapter_at_all() {
    let no_drivers =
        ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(|name| (name, "/nonexistent/driver.json"));
    if !alone("adapters::no_adapter_at_all", &no_drivers) {
        return;
    }
    assert!(list().is_empty());
    for selection in
        [Selection::Best, Selection::Matching("llvmpipe".into()), Selection::Matching("0".into())]
    {
        let error = open(selection).unwrap_err();
        assert!(matches!(error, Error::NoAdapter { .. }), "{error:?}");
        assert!(error.to_string().contains("mesa-vulkan-drivers"), "{error}");
    }
}
