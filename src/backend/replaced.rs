//! Kernels that stand in for this program's own, as pictures remember them.

/// A kernel, or a part that kernels share, that is another than this program's own.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReplacedKernel {
    /// Its file's, without the ending.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}
