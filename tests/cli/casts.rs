//! `mos bench concepts` on a cast of one.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{fixture, run};

/// One update, pictures of one step: what it prints is no matter, but that it adds up.
const LINE: &str = "bench concepts @/7 -o @/out --steps 1 --sampling-steps 1 --guidance 1 \
    --seeds 1 --json --adapter cpu";

/// A cast of one man with two pictures, who is said to have a green and a tiny part.
fn cast(at: &Path) {
    let (from, to) = (fixture("models/concepts/zorp"), at.join("7/zorp"));
    fs::create_dir_all(to.join("mask")).unwrap();
    for name in ["00.png", "00.txt", "01.png", "01.txt", "mask/00.png", "mask/01.png"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let about = r#"{"words": ["<zorp1>", "<zorp2>"], "class_word": "man", "parts": [
        {"number": 1, "name": "skin", "colour": [60, 190, 90], "share": 0.2},
        {"number": 2, "name": "button", "colour": [0, 0, 0], "share": 0.0001}]}"#;
    fs::write(to.join("concept.json"), about).unwrap();
    fs::write(at.join("7/cast.json"), r#"{"seed": 7, "concepts": ["zorp"]}"#).unwrap();
}

fn pictures(at: &Path) -> Vec<(String, SystemTime)> {
    let folder = at.join("out/zorp.pictures");
    let names = super::names(&folder).into_iter();
    names
        .map(|name| (name.clone(), fs::metadata(folder.join(name)).unwrap().modified().unwrap()))
        .collect()
}

#[test]
fn casts_are_scored_and_nothing_is_made_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    cast(at);
    let report = run(at, LINE).ok().json();
    let concept = &report["concepts"][0];
    assert_eq!((&concept["cast"], &concept["other_class"]), (&"7".into(), &"woman".into()));
    let ways = concept["ways"].as_array().unwrap();
    let named: Vec<&str> = ways.iter().map(|way| way["what"].as_str().unwrap()).collect();
    assert_eq!(
        named,
        [
            "class word",
            "ED-LoRA",
            "ED-LoRA, LoRA at 0",
            "class word, LoRA on",
            "another class",
            "another class, LoRA on"
        ]
    );
    let share = |way: &serde_json::Value| way["share"].as_f64().unwrap();
    assert_eq!((share(&concept["taught"]), share(&ways[0])), (1.0, 0.0));
    let [own, none, words] =
        [&concept["taught"], &ways[0], &ways[1]].map(|way| way["image"].as_f64().unwrap());
    assert!((share(&ways[1]) - (words - none) / (own - none)).abs() < 1e-9);
    // What nobody can see has no colour; the taught pictures have their own.
    let colours = concept["taught"]["colours"].as_array().unwrap();
    assert_eq!(colours.len(), 1);
    assert_eq!(colours[0]["part"], "skin");
    assert_eq!(report["summary"].as_array().unwrap().len(), 7);
    assert!(at.join("out/zorp.png").exists());

    let made = pictures(at);
    assert_eq!(made.len(), 6 * 8);
    fs::remove_file(at.join("out/zorp.pictures/ed-lora-1-1.png")).unwrap();
    let again = run(at, LINE).ok().json();
    let differ: Vec<String> = made
        .iter()
        .zip(pictures(at))
        .filter(|(a, b)| **a != *b)
        .map(|(_, (name, _))| name)
        .collect();
    assert_eq!(differ, ["ed-lora-1-1.png"]);
    assert_eq!(again["summary"], report["summary"]);
    let table = run(at, &LINE.replace(" --json", "")).ok().stdout;
    assert!(table.contains("7/zorp (man)") && table.contains("within 20"), "{table}");
}

#[test]
fn wrong_casts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    cast(at);
    run(at, &format!("{LINE} --classes woman,cow")).failed(2, &["--classes woman, cow"]);
    run(at, &LINE.replace("@/7", "@/7 @/7/zorp")).failed(2, &["7/zorp", "must differ"]);
    run(at, &format!("{LINE} --methods dora")).failed(2, &["dora", "p-plus"]);
    fs::write(at.join("7/cast.json"), "{").unwrap();
    run(at, LINE).failed(1, &["cast.json"]);
    fs::write(at.join("7/cast.json"), r#"{"concepts": ["none"]}"#).unwrap();
    run(at, LINE).failed(1, &["none", "concept.json"]);
}

/// Everything of a small table, but for what it prints.
const TABLE: &str = "bench table @/7 -o @/table --steps 1 --sampling-steps 1 --guidance 1 \
    --seeds 1 --prompts 1 --methods ed-lora,orthogonal --mergers averaged,exact,orthogonal --json \
    --adapter cpu";

/// The man, a cat, a place.
fn three(at: &Path) {
    cast(at);
    for (name, class) in [("mimi", "cat"), ("candy", "place")] {
        let (from, to) = (fixture("models/concepts").join(name), at.join("7").join(name));
        fs::create_dir_all(to.join("mask")).unwrap();
        for file in ["00.png", "00.txt", "01.png", "01.txt", "mask/00.png", "mask/01.png"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
        let about = format!(r#"{{"words": ["<{name}1>", "<{name}2>"], "class_word": "{class}"}}"#);
        fs::write(to.join("concept.json"), about).unwrap();
    }
    fs::write(at.join("7/cast.json"), r#"{"concepts": ["zorp", "mimi", "candy"]}"#).unwrap();
}

/// Files of the table with the times at which they were written.
fn written(at: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![at.join("table")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let (path, about) = entry.map(|e| (e.path(), e.metadata().unwrap())).unwrap();
            match about.is_dir() {
                true => folders.push(path),
                false => found.push((path, about.modified().unwrap())),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_table_has_all_methods_and_mergers_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    three(at);
    let ran = run(at, TABLE).ok();
    assert!(ran.stderr.contains("says who is who; --identity names another"), "{}", ran.stderr);
    let report = ran.json();
    let rows = report["rows"].as_array().unwrap();
    let named: Vec<&str> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(
        named,
        [
            "the pictures themselves",
            "class word",
            "ED-LoRA",
            "orthogonal",
            "averaged",
            "exact",
            "orthogonal, summed"
        ]
    );
    let of = |row: &serde_json::Value| -> Vec<String> {
        let groups = row["groups"].as_array().unwrap().iter();
        groups.map(|group| group["of"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(of(&rows[5]), ["people, animals", "places", "all"]);
    let group = |at: usize| &rows[5]["groups"][at];
    assert_eq!((&group(0)["concepts"], &group(1)["concepts"]), (&2.into(), &1.into()));
    assert!(group(0)["identity"]["mean"].is_f64() && group(1)["identity"].is_null());
    assert!(rows[5]["ordinary"]["mean"].is_f64() && rows[5]["seconds"]["mean"].is_f64());
    assert!(rows[2]["seconds"]["mean"].is_f64() && rows[2]["ordinary"].is_null());
    // Three pairs as the model's own tower sees them, one of two who are no places.
    let bleeding = report["bleeding"].as_array().unwrap();
    let exact = bleeding.iter().filter(|row| row["what"] == "exact").collect::<Vec<_>>();
    let told =
        |row: &serde_json::Value| format!("{} {}", row["judge"], row["than"]).replace('"', "");
    let told: Vec<String> = exact.iter().map(|row| told(row)).collect();
    assert_eq!(told, ["tower own file", "tower faded", "identity own file", "identity faded"]);
    assert_eq!(exact[0]["conflicts"]["pairs"], 3);
    assert!(exact[0]["conflicts"]["correlation"].is_f64() && exact[2]["conflicts"].is_null());
    assert_eq!((&exact[0]["ordered_pairs"], &exact[2]["ordered_pairs"]), (&6.into(), &2.into()));

    let made = written(at);
    let again = run(at, TABLE).ok().json();
    assert_eq!(again["rows"], report["rows"]);
    let results = ["table.json", "table.md", "table-7.png"];
    let differ: Vec<_> = made
        .iter()
        .zip(written(at))
        .filter(|(a, b)| **a != *b)
        .map(|(_, (path, _))| path.file_name().unwrap().to_str().unwrap().to_string())
        .filter(|name| !results.contains(&name.as_str()))
        .collect();
    assert_eq!(differ, [""; 0]);
    let text = fs::read_to_string(at.join("table/table.md")).unwrap();
    assert!(text.contains("| merged: exact ") && text.contains("3 concepts of 1 cast"), "{text}");

    // Of one method alone, what merges the other's is left out.
    let one =
        TABLE.replace("ed-lora,orthogonal --mergers averaged,exact", "ed-lora --mergers averaged");
    let ran = run(at, &one).ok();
    assert!(ran.stderr.contains("orthogonal is left out"), "{}", ran.stderr);
    assert_eq!(ran.json()["rows"].as_array().unwrap().len(), 4);
    run(at, &TABLE.replace("averaged,exact", "exact,exact")).failed(2, &["named twice"]);
    run(at, &TABLE.replace("averaged,exact", "sum")).failed(2, &["averaged, l-bfgs, exact"]);
    run(at, &format!("{TABLE} --identity @/none")).failed(1, &["none"]);
}

#[test]
fn the_recipe_for_strangers_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let [recipe, zorp] = ["models/concepts/strangers.toml", "models/concepts/zorp"].map(fixture);
    let line = format!(
        "train {} --pictures {} --words <zorp1> --class-word man -o @/z.safetensors --check",
        recipe.display(),
        zorp.display()
    );
    let checked = run(at, &line).ok();
    let told = checked.stdout + &checked.stderr;
    assert!(told.contains("48 class pictures") || told.contains("48 pictures"), "{told}");
}
