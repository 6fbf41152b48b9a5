//! Where pictures go.
use std::path::{Path, PathBuf};

/// A file for every seed, by the rules that `mos generate --help` states for `--output`.
pub fn destinations(output: Option<&Path>, prompt: &str, seeds: &[u64]) -> Vec<PathBuf> {
    let after_prompt = |seed: &u64| match slug(prompt).as_str() {
        "" => format!("{seed}.png"),
        slug => format!("{slug}-{seed}.png"),
    };
    let Some(output) = output else {
        return seeds.iter().map(|seed| after_prompt(seed).into()).collect();
    };
    let text = output.to_string_lossy();
    if output.is_dir() || text.ends_with(['/', std::path::MAIN_SEPARATOR]) {
        return seeds.iter().map(|seed| output.join(after_prompt(seed))).collect();
    }
    if text.contains("{seed}") || text.contains("{index}") {
        let numbered = seeds.iter().enumerate();
        let filled = |(i, seed): (usize, &u64)| {
            text.replace("{seed}", &seed.to_string()).replace("{index}", &(i + 1).to_string())
        };
        return numbered.map(|place| filled(place).into()).collect();
    }
    if seeds.len() == 1 {
        return vec![output.to_path_buf()];
    }
    let part = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
    let stem = part(output.file_stem()).unwrap_or_default();
    let extension = part(output.extension()).map_or(String::new(), |e| format!(".{e}"));
    (1..=seeds.len()).map(|n| output.with_file_name(format!("{stem}-{n}{extension}"))).collect()
}

/// The beginning of a prompt as a part of a file's name: its words in lower case, with hyphens
/// between them.
fn slug(prompt: &str) -> String {
    const LONGEST: usize = 40;
    let mut slug = String::new();
    let words = prompt.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    for word in words.map(str::to_lowercase) {
        if slug.chars().count() + word.chars().count() >= LONGEST {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug += &word;
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(output: Option<&str>, prompt: &str, seeds: &[u64]) -> Vec<String> {
        let paths = destinations(output.map(Path::new), prompt, seeds);
        paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn files_folders_and_patterns() {
        assert_eq!(
            names(None, "A red cat, in the (snow:1.2)!", &[7]),
            ["a-red-cat-in-the-snow-1-2-7.png"]
        );
        assert_eq!(names(None, "", &[7]), ["7.png"]);
        assert_eq!(names(None, "../../etc/passwd", &[7]), ["etc-passwd-7.png"]);
        assert_eq!(names(Some("new/"), "Übung", &[7, 8]), ["new/übung-7.png", "new/übung-8.png"]);
        assert_eq!(names(Some("cat.png"), "x", &[7]), ["cat.png"]);
        assert_eq!(names(Some("a.b/cat.png"), "x", &[7, 8]), ["a.b/cat-1.png", "a.b/cat-2.png"]);
        assert_eq!(names(Some("cat"), "x", &[7, 8]), ["cat-1", "cat-2"]);
        assert_eq!(names(Some("{index}/{seed}.png"), "x", &[7, 8]), ["1/7.png", "2/8.png"]);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(destinations(Some(folder.path()), "x", &[7]), [folder.path().join("x-7.png")]);
    }

    #[test]
    fn long_prompts_end_at_a_word() {
        let prompt = "a very long prompt that goes on and on without ever coming to its end";
        assert_eq!(names(None, prompt, &[1]), ["a-very-long-prompt-that-goes-on-and-on-1.png"]);
    }
}
