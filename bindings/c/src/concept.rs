//! Concepts and LoRAs, read from their files.

use std::ffi::{CString, c_char};
use std::path::PathBuf;

use mixofshow::Applied;
use mixofshow::checkpoint::adapter_files;
use mixofshow::concept::{Concept, dialects};
use mixofshow::pipeline::recipe::{ConceptSource, Source};

use crate::border::{Struct, free, looking, making};
use crate::error::{MosStatus, Result, text};
use crate::given::{self, index, object};

/// A concept or a LoRA.
pub struct MosConcept {
    pub(crate) path: PathBuf,
    /// Several where a folder has one for each network.
    files: Vec<(Source, Concept)>,
    name: CString,
    words: Vec<CString>,
    notes: Vec<CString>,
}

/// A concept or a LoRA in use: begun by mos_concept_use_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MosConceptUse {
    /// Of this struct, in bytes.
    pub size: usize,
    /// What is used.
    pub concept: *const MosConcept,
    /// Factor of its LoRA; 1 is as it was taught.
    pub scale: f32,
    /// That of the text encoder's part; NAN: the same.
    pub text_scale: f32,
}

// SAFETY: as it asks.
unsafe impl Struct for MosConceptUse {
    const NAME: &'static str = "MosConceptUse";

    fn usual() -> Self {
        MosConceptUse { size: 0, concept: std::ptr::null(), scale: 1.0, text_scale: f32::NAN }
    }
}

impl MosConcept {
    fn read(path: PathBuf) -> Result<MosConcept> {
        let (mut files, mut notes) = (Vec::new(), Vec::new());
        for file in adapter_files(&path)? {
            let (concept, told) = dialects::read(&file)?;
            notes.extend(told.iter().map(|note| text(note)));
            files.push((Source::of(&file)?, concept));
        }
        let words = files.iter().flat_map(|(_, concept): &(_, Concept)| &concept.words);
        let words = words.map(|word| text(&word.text)).collect();
        let name = files.first().map(|(_, concept)| text(&concept.name)).unwrap_or_default();
        Ok(MosConcept { path, files, name, words, notes })
    }

    /// Of its files: in use, and as settings name them.
    pub fn applied(&self, [unet, te]: [f32; 2]) -> Result<Vec<(Applied, ConceptSource)>> {
        let applied = |(source, concept): &(Source, Concept)| {
            let text_scale = Some(te).filter(|te| *te != unet);
            let named = ConceptSource { source: source.clone(), scale: unet, text_scale };
            let applied = Applied::scaled(concept.clone(), |network| named.scale_of(network))?;
            Ok((applied, named))
        };
        self.files.iter().map(applied).collect()
    }
}

impl MosConceptUse {
    /// Of the UNet's part and of the text encoder's.
    pub fn scales(&self) -> [f32; 2] {
        [self.scale, if self.text_scale.is_nan() { self.scale } else { self.text_scale }]
    }
}

/// Fills in the usual values of a struct of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_concept_use_init(to: *mut MosConceptUse, size: usize) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { crate::border::init(to, size) }
}

/// Reads a concept or a LoRA of any program: a file, or a folder of PEFT or diffusers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_concept_read(
    path: *const c_char,
    concept: *mut *mut MosConcept,
) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { making(concept, || MosConcept::read(given::needed(path, "the path")?.into())) }
}

/// Gives a concept back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_concept_free(concept: *mut MosConcept) {
    // SAFETY: as the header says.
    unsafe { free(concept) }
}

/// Its name, as regions may name it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_concept_name(concept: *const MosConcept) -> *const c_char {
    // SAFETY: as the header says.
    looking(std::ptr::null(), || Ok(unsafe { object(concept, "concept") }?.name.as_ptr()))
}

/// How many words stand for it in prompts; a LoRA has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_concept_word_count(concept: *const MosConcept) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(concept, "concept") }?.words.len()))
}

/// One of its words, in the order in which they stand in a prompt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_concept_word(
    concept: *const MosConcept,
    number: usize,
) -> *const c_char {
    looking(std::ptr::null(), || {
        // SAFETY: as the header says.
        let words = &unsafe { object(concept, "concept") }?.words;
        Ok(words[index(number, words.len(), "word")?].as_ptr())
    })
}

/// How much was left out or guessed while it was read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_concept_note_count(concept: *const MosConcept) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(concept, "concept") }?.notes.len()))
}

/// One of these, in a sentence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_concept_note(
    concept: *const MosConcept,
    number: usize,
) -> *const c_char {
    looking(std::ptr::null(), || {
        // SAFETY: as the header says.
        let notes = &unsafe { object(concept, "concept") }?.notes;
        Ok(notes[index(number, notes.len(), "note")?].as_ptr())
    })
}
