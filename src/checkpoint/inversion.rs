//! Textual inversions: embeddings of new words and nothing else, as every program writes them, and
//! what the words are.
use super::TensorFile;

/// Vectors that one word may have.
const MOST_VECTORS: usize = 128;
/// Widths of text encoders are multiples of this: a lone tensor of another width is something else.
const WIDTHS: usize = 64;
/// What Stable Diffusion XL's embeddings have of its second text encoder.
const SECOND: &str = "clip_g";
/// Names that say nothing of the word: it is called like its file, as web UIs call all embeddings.
const NAMELESS: [&str; 2] = ["emb_params", "clip_l"];
/// What a pickle of one tensor, or of a list of one, is called here.
const BARE: [&str; 2] = ["tensor", "0"];
const PARAMETERS: &str = "string_to_param.";
/// The tokens of the first program's own vocabulary.
const TOKENS: &str = "string_to_token.";

/// The vectors of one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedding {
    /// As the file names it.
    pub tensor: String,
    /// The word that stands for it in a prompt.
    pub word: String,
    /// How many vectors stand for the word.
    pub vectors: usize,
    /// Width of a vector: that of the text encoder it belongs to.
    pub width: usize,
}

/// The embeddings of a file that holds nothing else, in the order of its names; none of another
/// file, and of those of Stable Diffusion XL ([`is_xl`]).
pub fn embeddings(file: &TensorFile) -> Option<Vec<Embedding>> {
    let names: Vec<&str> = file.names().filter(|name| !name.starts_with(TOKENS)).collect();
    let alone = names.len() == 1;
    let stem = || file.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let is_marked = |name: &str| name.len() > 2 && name.starts_with('<') && name.ends_with('>');
    let one = |name: &&str| {
        let entry = file.entries().get(*name)?;
        let (vectors, width) = match entry.shape[..] {
            [width] => (1, width),
            [vectors, width] => (vectors, width),
            _ => return None,
        };
        if !entry.dtype.is_float() || width == 0 || !(1..=MOST_VECTORS).contains(&vectors) {
            return None;
        }
        let word = match (*name, name.strip_prefix(PARAMETERS)) {
            (name, None) if is_marked(name) => name.to_string(),
            (_, Some(word)) if is_marked(word) || !alone => word.to_string(),
            (_, Some(_)) => stem()?,
            (name, None) if alone && NAMELESS.contains(&name) => stem()?,
            (name, None) if alone && width.is_multiple_of(WIDTHS) && BARE.contains(&name) => {
                stem()?
            }
            (name, None)
                if alone
                    && width.is_multiple_of(WIDTHS)
                    && !name.contains('.')
                    && name != SECOND =>
            {
                name.to_string()
            }
            _ => return None,
        };
        Some(Embedding { tensor: name.to_string(), word, vectors, width })
    };
    let all: Vec<Embedding> = names.iter().map(one).collect::<Option<_>>()?;
    let same_width = all.windows(2).all(|pair| pair[0].width == pair[1].width);
    (!all.is_empty() && same_width).then_some(all)
}

/// In the metadata of this program's files of Stable Diffusion XL's embeddings, whose tensors are
/// named after the text encoders: the word.
pub const WORD_KEY: &str = "mos_word";

/// What Stable Diffusion XL's embeddings have of its first text encoder.
const FIRST: &str = "clip_l";

/// The file is an embedding of Stable Diffusion XL, with vectors of its second text encoder.
pub fn is_xl(file: &TensorFile) -> bool {
    file.contains(SECOND) && file.names().all(|name| name == SECOND || name == FIRST)
}

/// The vectors of such a file's word, of the first text encoder and of the second; where the file
/// does not say the word, it is called like the file.
pub fn of_xl(file: &TensorFile) -> Vec<Embedding> {
    let told = file.metadata().get(WORD_KEY).filter(|word| !word.trim().is_empty()).cloned();
    let stem = || file.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let word = told.or_else(stem);
    let one = |tensor: &str| {
        let (vectors, width) = match file.entries().get(tensor)?.shape[..] {
            [width] => (1, width),
            [vectors, width] => (vectors, width),
            _ => return None,
        };
        let (tensor, word) = (tensor.to_string(), word.clone()?);
        Some(Embedding { tensor, word, vectors, width })
    };
    [FIRST, SECOND].into_iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{DType, TensorView, to_bytes};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn file(tensors: &[(&str, &[usize])]) -> TensorFile {
        let path = Path::new("folder/ink.pt");
        let view = |shape: &[usize]| {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()];
            TensorView::new(DType::F32, shape.to_vec(), bytes).unwrap()
        };
        let views: Vec<_> =
            tensors.iter().map(|(name, shape)| (name.to_string(), view(shape))).collect();
        TensorFile::from_bytes(path, to_bytes(path, &views, &BTreeMap::new()).unwrap()).unwrap()
    }

    #[test]
    fn words_are_told() {
        let words = |tensors: &[(&str, &[usize])]| {
            let all = embeddings(&file(tensors))?;
            Some(all.into_iter().map(|e| (e.word, e.vectors)).collect::<Vec<_>>())
        };
        let ink = |vectors| Some(vec![("ink".to_string(), vectors)]);
        for name in
            ["emb_params", "clip_l", "tensor", "0", "string_to_param.*", "string_to_param.word"]
        {
            assert_eq!(words(&[(name, &[3, 64])]), ink(3), "{name}");
        }
        assert_eq!(words(&[("string_to_param.*", &[64]), ("string_to_token.*", &[])]), ink(1));
        let own = |word: &str| Some(vec![(word.to_string(), 1)]);
        assert_eq!(words(&[("<a>", &[6])]), own("<a>"));
        assert_eq!(words(&[("string_to_param.<a>", &[1, 64])]), own("<a>"));
        assert_eq!(words(&[("sketchy", &[64])]), own("sketchy"));
        let two = words(&[("<a>", &[6]), ("<b>", &[2, 6])]).unwrap();
        assert_eq!(two, [("<a>".to_string(), 1), ("<b>".to_string(), 2)]);
        for other in [
            &[("weight", &[5usize][..])][..],
            &[("a.weight", &[64])],
            &[("<a>", &[200, 64])],
            &[("<a>", &[64]), ("<b>", &[128])],
            &[("a", &[64]), ("b", &[64])],
            &[("clip_g", &[1, 1280])],
            &[("clip_l", &[1, 768]), ("clip_g", &[1, 1280])],
            &[],
        ] {
            assert_eq!(words(other), None, "{other:?}");
        }
        assert!(
            is_xl(&file(&[("clip_l", &[1, 768]), ("clip_g", &[1, 1280])]))
                && is_xl(&file(&[("clip_g", &[1, 1280])]))
        );
        assert!(!is_xl(&file(&[("clip_l", &[1, 768])])));
    }
}
