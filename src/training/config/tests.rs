//! Settings: files and flags, and what is wrong with them.
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches};

use super::*;
use crate::training::captions::Templates;
use crate::training::step::{Method, PriorTarget, TextLayers, UNetLayers};

const KINDS: [Kind; 4] = [Kind::Person, Kind::Object, Kind::Scene, Kind::Style];

fn read_text(text: &str) -> Result<Options> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    fs::write(&path, text).unwrap();
    Options::read_toml(&path)
}

fn flags(line: &[&str]) -> Options {
    let command = Options::augment_args(clap::Command::new("train"));
    let matches = command.try_get_matches_from([&["train"], line].concat()).unwrap();
    Options::from_arg_matches(&matches).unwrap()
}

#[test]
fn every_field_is_a_flag_and_stands_in_the_template() {
    let command = Options::augment_args(clap::Command::new("train"));
    for key in Options::KEYS {
        let flag = if *key == "prompts" { "prompt".to_string() } else { key.replace('_', "-") };
        assert!(
            command.get_arguments().any(|argument| argument.get_long() == Some(&flag)),
            "--{flag}"
        );
        for kind in KINDS {
            let text = template(kind);
            let lines = text.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
            assert_eq!(
                lines.filter(|line| line.starts_with(&format!("{key} = "))).count(),
                1,
                "{key} in {kind}"
            );
        }
    }
}

/// What a template shows behind its `#` are the defaults.
#[test]
fn templates_tell_the_defaults() {
    for kind in KINDS {
        let text = template(kind);
        let is_setting = |line: &str| {
            let key =
                line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).map(|(key, _)| key);
            // Where the files are, the size, and what is asked of the class are the user's; the
            // guidance of sheets is the model's.
            let open =
                ["captions", "masks", "size", "sheet_guidance", "prior_folder", "class_prompt"];
            key.is_some_and(|key| Options::KEYS.contains(&key) && !open.contains(&key))
        };
        let all: String = text
            .lines()
            .map(|l| if is_setting(l) { &l[2..] } else { l })
            .map(|l| format!("{l}\n"))
            .collect();
        assert_ne!(all, text);
        let settings = |text: &str| {
            let mut settings = Settings::new(read_text(text).unwrap()).unwrap();
            let name = |path: &Path| PathBuf::from(path.file_name().unwrap());
            settings.output = name(&settings.output);
            settings.folders[0].pictures = name(&settings.folders[0].pictures);
            // Said or not, it is the same caption.
            settings.folders[0].caption.get_or_insert("<TOK>".into());
            settings
        };
        assert_eq!(settings(&all), settings(&text), "{kind}");
        assert_eq!(settings(&text).kind, kind);
    }
}

#[test]
fn flags_come_before_the_file() {
    let file = read_text(
        "words = \"<a1> <a2>\"\nclass_word = \"dog\"\npictures = \"p\"\nsteps = 7\nseed = 3\n",
    )
    .unwrap();
    let line = [
        "--steps",
        "9",
        "--method",
        "p-plus",
        "--mask-loss=false",
        "--prompt",
        "x",
        "--prompt",
        "y",
        "--sheet-scales",
        "0,1",
    ];
    let settings = Settings::new(flags(&line).or(file)).unwrap();
    assert_eq!((settings.steps, settings.seed, settings.method), (9, 3, Method::PPlus));
    assert_eq!((settings.mask_loss, settings.sheet_scales.as_slice()), (false, &[0.0, 1.0][..]));
    assert_eq!(settings.prompts, ["x", "y"]);
    assert_eq!(settings.words, ["<a1>", "<a2>"]);
    assert_eq!(settings.initializers, [Initializer::Noise(0.013), Initializer::Word("dog".into())]);
    // Paths are meant from the file.
    assert!(settings.folders[0].pictures.is_absolute());
    assert_eq!(settings.output, Path::new("p.safetensors"));
    let again: Settings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
    assert_eq!(again, settings);
}

#[test]
fn wrong_keys_and_values_are_named_with_their_place() {
    for (text, says) in [
        ("step = 5\n", ["unknown key `step`", "a.toml"]),
        ("steps = \"many\"\n", ["found the text \"many\", expected a whole number", "line 1"]),
        (
            "\nmethod = \"dreambooth\"\n",
            ["`dreambooth` is none of ed-lora, lora, p-plus, orthogonal", "line 2"],
        ),
        ("steps = 1\nsteps = 2\n", ["duplicate key", "line 2"]),
        ("words = [1\n", ["a.toml", "line"]),
    ] {
        let error = read_text(text).unwrap_err().to_string();
        assert!(says.iter().all(|say| error.contains(say)), "{text}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json");
    for (text, says) in [
        (r#"{"name": "a", "batch": "two"}"#, "`batch`: found the text \"two\", expected a whole"),
        (r#"{"name": "a", "lr": 1}"#, "unknown key `lr`"),
    ] {
        fs::write(&json, text).unwrap();
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("a.json"), "{error}");
    }
    let error = read(Path::new("/nonexistent/a.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/a.toml: cannot be read"), "{error}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text =
        "steps = 0\ncrop = 2.0\nsize = \"big\"\nbeta1 = 1.0\nscale_max = 0.5\nsheet_scales = []";
    let error = Settings::new(read_text(text).unwrap()).unwrap_err();
    let Error::Settings(wrong) = error else { panic!("{error}") };
    for part in [
        "words are missing",
        "class_word is missing",
        "pictures are missing",
        "steps is 0: expected a whole number from 1 to 10000000",
        "crop is 2: expected a number from 0 to 1",
        "size is `big`",
        "beta1 is 1: expected a number from 0, below 1",
        "scale_min is 1: expected no more than scale_max, 0.5",
        "sheet_scales is an empty list",
    ] {
        assert_eq!(wrong.iter().filter(|line| line.contains(part)).count(), 1, "{part}: {wrong:?}");
    }
    assert_eq!(wrong.len(), 9, "{wrong:?}");
    let twice = flags(&["--words", "<a> <A>", "--initializers", "<rand-x> man", "--pictures", "p"]);
    let text = Settings::new(twice).unwrap_err().to_string();
    assert!(text.contains("<A> is given twice") && text.contains("<rand-x>"), "{text}");
    let few = flags(&["--words", "<a> <b>", "--initializers", "man", "--pictures", "p"]);
    assert!(
        Settings::new(few).unwrap_err().to_string().contains("initializers: 1 start for 2 words")
    );
}

#[test]
fn class_pictures_are_made_or_in_a_folder() {
    let settings = |text: &str| {
        let text = format!("words = \"<a1> <a2>\"\npictures = \"p\"\n{text}");
        Settings::new(read_text(&text).unwrap())
    };
    let plain = settings("class_word = \"man\"").unwrap();
    assert!(!plain.has_prior());
    assert_eq!((plain.prior_pictures, plain.prior_weight, plain.prior_steps), (0, 1.0, 25));
    let own = settings("class_word = \"man\"\nprior_folder = \"men\"").unwrap();
    assert_eq!(own.prior_target, PriorTarget::Noise);
    assert!(own.has_prior() && own.prior_folder.unwrap().is_absolute());
    let prompt = "initializers = \"<rand-0.1> <rand-0.1>\"\nprior_pictures = 5\n";
    assert!(settings(&format!("{prompt}class_prompt = \"a man\"")).unwrap().has_prior());
    for (text, says) in [
        ("class_word = \"man\"\nprior_pictures = 20000", "prior_pictures is 20000: expected"),
        ("class_word = \"man\"\nprior_weight = -0.5", "prior_weight is -0.5: expected a number"),
        ("prior_target = \"base\"", "prior_target is base: expected class pictures beside it"),
        ("class_word = \"man\"\nprior_steps = 0", "prior_steps is 0: expected a whole number"),
        (
            "class_word = \"man\"\nprior_pictures = 3\nprior_folder = \"men\"",
            "prior_pictures and prior_folder both say",
        ),
        ("class_word = \"man\"\nclass_prompt = \"photo of <A1>\"", "<a1> among them"),
        (prompt, "class_word is missing: class pictures need it"),
        (&format!("{prompt}class_prompt = \"<TOK>\""), "class_word is missing"),
    ] {
        let error = settings(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn regularisation_leaves_something_to_learn() {
    let given = ["--words", "<a> <b>", "--class-word", "man", "--pictures", "p", "--steps", "100"];
    let settings = |more: &[&str]| Settings::new(flags(&[&given[..], more].concat()));
    let of = settings(&["--lora-dropout", "0.1", "--rank-dropout", "0.2", "--words-first", "40"]);
    let of = of.unwrap();
    assert_eq!((of.lora_dropout, of.rank_dropout, of.words_first), (0.1, 0.2, 40));
    assert_eq!(of.lora_weight_decay, None);
    assert_eq!(settings(&["--lora-weight-decay", "2"]).unwrap().lora_weight_decay, Some(2.0));
    for (text, says) in [
        ("lora_dropout = 1.0", "lora_dropout is 1: expected a number from 0, below 1"),
        ("rank_dropout = -0.1", "rank_dropout is -0.1: expected a number from 0, below 1"),
        ("lora_weight_decay = -1.0", "lora_weight_decay is -1: expected a number from 0 on"),
        ("lora_weight_decay = 2e4", "lora_weight_decay is 20000: expected 10000 at most"),
        ("words_first = 100", "words_first is 100: expected fewer than all 100 steps"),
    ] {
        let error = Settings::new(flags(&given).or(read_text(text).unwrap())).unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    assert!(settings(&["--words-first", "100", "--method", "p-plus"]).is_ok());
}

/// A settings file as the method's code has them, its concept list and pictures beside it.
fn published(folder: &Path, yaml: &str) -> PathBuf {
    for name in ["data/potter/image", "data/potter/caption", "options", "cfgs"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    for name in ["a.png", "b.png", "c.jpg", "notes.txt"] {
        fs::write(folder.join("data/potter/image").join(name), "").unwrap();
    }
    let list = r#"[{"instance_prompt": "<TOK>", "instance_data_dir": "data/potter/image", "caption_dir": "data/potter/caption"}]"#;
    fs::write(folder.join("cfgs/potter.json"), list).unwrap();
    fs::write(folder.join("cfgs/prompts.txt"), "photo of a <TOK>\n\n<TOK> at the sea\n").unwrap();
    let path = folder.join("options/potter.yml");
    fs::write(&path, yaml).unwrap();
    path
}

const YAML: &str = "
name: 8101_potter_v1.2
manual_seed: 4
mixed_precision: fp16
datasets:
  train:
    name: LoraDataset
    concept_list: cfgs/potter.json
    use_caption: true
    use_mask: true
    instance_transform:
      - { type: HumanResizeCropFinalV3, size: 512, crop_p: 0.5 }
      - { type: ToTensor }
      - { type: Normalize, mean: [ 0.5 ], std: [ 0.5 ] }
      - { type: ShuffleCaption, keep_token_num: 1 }
      - { type: EnhanceText, enhance_type: human }
    replace_mapping:
      <TOK>: <potter1> <potter2>
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 500
  val_vis:
    name: PromptDataset
    prompts: cfgs/prompts.txt
    replace_mapping:
      <TOK>: <potter1> <potter2>
models:
  pretrained_path: experiments/chilloutmix
  enable_edlora: true
  finetune_cfg:
    text_embedding: { enable_tuning: true, lr: !!float 1e-3 }
    text_encoder:
      enable_tuning: true
      lora_cfg: { rank: 4, alpha: 1.0, where: CLIPEncoderLayer }
      lr: 1e-5
    unet:
      enable_tuning: true
      lora_cfg: { rank: 8, alpha: 1.0, where: Transformer2DModel }
      lr: !!float 1e-4
  new_concept_token: <potter1>+<potter2>
  initializer_token: <rand-0.02>+man
  noise_offset: 0.01
  attn_reg_weight: 0.01
  reg_full_identity: true
  use_mask_loss: true
  gradient_checkpoint: true
path:
  pretrain_network: ~
train:
  optim_g: { type: AdamW, lr: !!float 0.0, weight_decay: 0.02, betas: [ 0.9, 0.99 ] }
  unet_kv_drop_rate: 0
  scheduler: linear
  emb_norm_threshold: !!float 5.5e-1
val:
  alpha_list: [0, 0.7, 1.0]
  sample: { num_inference_steps: 50, guidance_scale: 7.5 }
logger:
  print_freq: 10
";

#[test]
fn published_settings_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (options, notes) = read(&published(folder.path(), YAML)).unwrap();
    let settings = Settings::new(options).unwrap();
    assert_eq!(
        (settings.name.as_str(), settings.output.as_path()),
        ("8101_potter_v1.2", Path::new("8101_potter_v1.2.safetensors"))
    );
    assert_eq!((settings.seed, settings.method), (4, Method::EdLora));
    assert_eq!(settings.words, ["<potter1>", "<potter2>"]);
    assert_eq!(settings.initializers, [Initializer::Noise(0.02), Initializer::Word("man".into())]);
    assert_eq!(settings.class_word.as_deref(), Some("man"));
    assert_eq!(
        (settings.text_layers, settings.unet_layers),
        (TextLayers::EncoderLayer, UNetLayers::Transformer)
    );
    assert_eq!((settings.text_rank, settings.unet_rank, settings.alpha), (4, 8, 1.0));
    assert_eq!((settings.words_lr, settings.text_lr, settings.unet_lr), (1e-3, 1e-5, 1e-4));
    assert_eq!(
        (settings.weight_decay, settings.betas, settings.norm_stop),
        (0.02, [0.9, 0.99], Some(0.55))
    );
    assert_eq!(
        (settings.size, settings.crop, settings.scale, settings.variants),
        (Some([512, 512]), 0.5, [1.0, 1.0], 0)
    );
    assert_eq!((settings.templates, settings.template_sentences), (Templates::Person, true));
    assert_eq!((settings.shuffle_tags, settings.keep_tags), (true, 1));
    assert!(settings.mask_loss && settings.full_identity && settings.checkpointing);
    assert_eq!((settings.attention_weight, settings.noise_offset), (0.01, 0.01));
    // Three pictures, 500 times each, two on each of two cards.
    assert_eq!((settings.steps, settings.batch, settings.accumulate), (375, 2, 2));
    assert!(
        settings.folders[0].pictures.ends_with("data/potter/image")
            && settings.folders[0].pictures.is_dir()
    );
    assert!(settings.folders[0].captions.as_ref().unwrap().is_dir());
    assert_eq!(settings.prompts, ["photo of a <TOK>", "<TOK> at the sea"]);
    assert_eq!((settings.sheet_steps, settings.sheet_guidance), (50, Some(7.5)));
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("cards"));
}

#[test]
fn gathered_batches_of_published_settings_make_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = YAML
        .replace("manual_seed: 4", "manual_seed: 4\nnum_gpu: 1\ngradient_accumulation_steps: 5");
    let (options, notes) = read(&published(folder.path(), &yaml)).unwrap();
    let settings = Settings::new(options).unwrap();
    // Three pictures, 500 times each, five batches of two.
    assert_eq!((settings.steps, settings.batch, settings.accumulate), (150, 2, 5));
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(note.starts_with("`accumulate` is 5, as on 1 card, each with 5 batches"), "{note}");
    // Both together, where the number of cards is not told.
    let yaml = YAML.replace("manual_seed: 4", "manual_seed: 4\ngradient_accumulation_steps: 3");
    let (options, notes) = read(&published(folder.path(), &yaml)).unwrap();
    assert_eq!(options.accumulate, Some(6));
    let says = ["`accumulate` is 6, as on 2 cards (assumed", "each with 3 batches"];
    assert!(says.iter().all(|says| notes[0].contains(says)), "{notes:?}");
}

#[test]
fn older_published_settings_are_read_too() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = YAML
        .replace("models:", "network_g:")
        .replace("enable_edlora: true", "type: EDLoRA")
        .replace("where: Transformer2DModel", "where: CrossAttention")
        .replace(
            "{ type: HumanResizeCropFinalV3, size: 512, crop_p: 0.5 }",
            "{ type: ResizeFillMaskNew, size: 512, scale_ratio: [0.5, 1.0] }",
        )
        .replace("enhance_type: human", "enhance_type: objects")
        .replace(
            "scheduler: linear",
            "scheduler: { type: LinearLR, num_epochs: 5 }\n  total_iter: 800",
        )
        .replace("unet_kv_drop_rate: 0", "unet_kv_drop_rate: 0.2")
        .replace("manual_seed: 4", "num_gpu: 1")
        .replace(
            "concept_list: cfgs/potter.json",
            "concept_list: cfgs/potter.json\n    surprise: 1",
        );
    let (options, notes) = read(&published(folder.path(), &yaml)).unwrap();
    let settings = Settings::new(options).unwrap();
    assert_eq!((settings.steps, settings.accumulate, settings.kind), (800, 1, Kind::Object));
    assert_eq!(
        (settings.scale, settings.crop, settings.templates),
        ([0.5, 1.0], 0.0, Templates::Object)
    );
    assert_eq!(settings.unet_layers, UNetLayers::Attention);
    assert!(notes.iter().any(|note| note.contains("unet_kv_drop_rate")), "{notes:?}");
}

#[test]
fn parts_that_are_not_tuned_have_no_updates() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = YAML.replacen(
        "text_encoder:\n      enable_tuning: true",
        "text_encoder:\n      enable_tuning: false",
        1,
    );
    let (options, _) = read(&published(folder.path(), &yaml)).unwrap();
    assert_eq!((options.text_rank, options.unet_rank), (Some(0), Some(8)));
}

#[test]
fn damaged_published_settings_are_named_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("rank: 8", "rank: many", "models.finetune_cfg.unet.lora_cfg.rank"),
        (
            "where: CLIPEncoderLayer",
            "where: Nowhere",
            "models.finetune_cfg.text_encoder.lora_cfg.where",
        ),
        ("rank: 8, alpha: 1.0", "rank: 8, alpha: 2.0", "models.finetune_cfg.unet.lora_cfg.alpha"),
        (
            "concept_list: cfgs/potter.json",
            "concept_list: cfgs/none.json",
            "datasets.train.concept_list",
        ),
        ("type: AdamW", "type: Lion", "train.optim_g.type"),
        ("enhance_type: human", "enhance_type: robot", "instance_transform[4].enhance_type"),
        ("datasets:", "data:", "datasets"),
        ("manual_seed: 4", "manual_seed: [4", "line"),
    ];
    for (from, to, says) in cases {
        let yaml = YAML.replacen(from, to, 1);
        assert_ne!(yaml, YAML);
        let error = read(&published(folder.path(), &yaml)).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("potter.yml"), "{to}: {error}");
    }
    let path = published(folder.path(), YAML);
    fs::write(folder.path().join("cfgs/potter.json"), "{").unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("potter.json"));
    fs::write(folder.path().join("cfgs/potter.json"), "[{}]").unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("[0].instance_data_dir"));
}
