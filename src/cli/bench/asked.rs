//! What is asked of concepts: prompts, and the words in them.
use mixofshow::metrics::survey::Class;
use mixofshow::training::step::Method;

use super::study::Subject;

const PROMPTS: [&str; 8] = [
    "a photo of a <TOK> on a white background",
    "a photo of a <TOK> on the beach",
    "a photo of a <TOK> in the snow",
    "a photo of a <TOK> in a forest",
    "a photo of a <TOK> in a city at night",
    "a photo of a <TOK> in the desert",
    "a photo of a <TOK> and a cat in a room",
    "a photo of a <TOK> under the sea",
];

/// Of a place, which is around everything else.
const PROMPTS_OF_PLACES: [&str; 8] = [
    "a photo of <TOK>",
    "a cat in <TOK>",
    "a man in <TOK>",
    "a woman in a red dress in <TOK>",
    "a blue chair in <TOK>",
    "a yellow car in <TOK>",
    "a white rabbit in <TOK>",
    "a man and a dog in <TOK>",
];

/// They name no concept.
pub const ORDINARY: [&str; 4] = [
    "a photo of a woman in a red dress on the beach",
    "a cat and a man in the snow",
    "a green house in the mountains",
    "a yellow car in the city",
];

/// How many prompts there are.
pub const COUNT: usize = PROMPTS.len();

pub fn prompts(subject: &Subject) -> [&'static str; COUNT] {
    match is_place(subject) {
        true => PROMPTS_OF_PLACES,
        false => PROMPTS,
    }
}

pub fn is_place(subject: &Subject) -> bool {
    Class::of(&subject.class_word) == Class::Places
}

/// What stands for a class in a prompt of `subject`: a place brings its article along.
pub fn class_phrase(subject: &Subject, word: &str) -> String {
    match is_place(subject) {
        true => format!("a {word}"),
        false => word.to_string(),
    }
}

/// Where a concept's pictures are kept, in the folder for results.
pub fn pictures_of(subject: &Subject) -> String {
    format!("{}.pictures", subject.name)
}

/// How rows and files call what a method's words make.
pub fn name_of(method: Method) -> &'static str {
    match method {
        Method::PPlus => "P+",
        Method::Lora => "LoRA",
        Method::EdLora => "ED-LoRA",
        Method::Orthogonal => "orthogonal",
    }
}
