//! Rendering of the kernels in `kernels/`: WGSL with line statements that are WGSL comments (`//% for ...`) and `{{ }}`.
//! Who works on kernels can name a folder in `MOS_KERNELS`: its files are read instead, without a rebuild.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use include_dir::{Dir, include_dir};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};

use super::{Error, Result};

static KERNELS: Dir = include_dir!("$CARGO_MANIFEST_DIR/kernels");

pub use minijinja::Value;

/// What a kernel is rendered with: tile sizes, element types, epilogue.
pub type Params = BTreeMap<&'static str, Value>;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.line_statement_prefix("//%").line_comment_prefix("//#");
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_loader(|name| {
        let file = format!("{name}.wgsl");
        let own = std::env::var_os("MOS_KERNELS").map(|folder| std::path::Path::new(&folder).join(&file));
        if let Some(text) = own.and_then(|path| std::fs::read_to_string(path).ok()) {
            return Ok(Some(text));
        }
        Ok(KERNELS.get_file(file).and_then(|file| file.contents_utf8()).map(String::from))
    });
    environment
});

/// Names of all kernels, sorted.
pub fn kernel_names() -> Vec<String> {
    let stem = |path: &std::path::Path| Some(path.file_stem()?.to_str()?.to_string());
    let mut names: Vec<String> = KERNELS.files().filter_map(|f| stem(f.path())).collect();
    names.sort();
    names
}

/// The WGSL of `kernels/<name>.wgsl` with `params`.
pub fn render(name: &str, params: &Params) -> Result<String> {
    let failed = |e: minijinja::Error| Error::Kernel { kernel: name.into(), message: format!("{e:#}") };
    ENVIRONMENT.get_template(name).map_err(failed)?.render(params).map_err(failed)
}

pub(super) fn cache_key(name: &str, params: &Params) -> String {
    let mut key = name.to_string();
    for (param, value) in params {
        key.push_str(&format!(" {param}={value}"));
    }
    key
}
