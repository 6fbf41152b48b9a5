//! The header that is checked in is the one that the sources make.
//! `MOS_UPDATE_HEADER=1 cargo test -p mixofshow-c-header` writes it.

use std::path::Path;

#[test]
fn the_header_is_up_to_date() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).unwrap();
    let made = cbindgen::Builder::new().with_src(package.join("src/lib.rs")).with_config(config);
    let mut text = Vec::new();
    made.generate().unwrap().write(&mut text);
    let (text, file) = (String::from_utf8(text).unwrap(), package.join("include/mixofshow.h"));
    if std::env::var_os("MOS_UPDATE_HEADER").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(stored == text, "{} is not what the sources make", file.display());
}
