//! Files of `torch.save`: what is read, what is refused, and what damage does.
use super::*;
use crate::checkpoint::{TensorFile, pickle};

fn concept(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/concepts").join(name))
        .unwrap()
}

fn read(bytes: &[u8]) -> Result<TensorFile, String> {
    pickle::read(Path::new("a.pth"), bytes).map_err(|e| e.to_string())
}

/// The error of a bare pickle that stands where `torch.save`'s object does.
fn refused(object: &[u8]) -> String {
    let mut bytes =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02".to_vec();
    bytes.extend_from_slice(object);
    bytes.extend_from_slice(b".\x80\x02].");
    let error = read(&bytes).unwrap_err();
    assert!(error.starts_with("a.pth: a Python pickle that cannot be read: "), "{error}");
    error
}

#[test]
fn both_formats_hold_the_same() {
    let (zip, legacy) = (
        read(&concept("mix-of-show.pth")).unwrap(),
        read(&concept("mix-of-show.legacy.pth")).unwrap(),
    );
    assert_eq!(zip.names().collect::<Vec<_>>(), legacy.names().collect::<Vec<_>>());
    assert!(zip.contains("params.new_concept_embedding.<zorp1>"));
    for name in zip.names() {
        let (a, b) = (zip.tensor(name).unwrap(), legacy.tensor(name).unwrap());
        assert_eq!((a.dtype(), a.shape(), a.bytes()), (b.dtype(), b.shape(), b.bytes()), "{name}");
    }
    let inversion = read(&concept("inversion.pt")).unwrap();
    assert_eq!(inversion.metadata().get("name").map(String::as_str), Some("ink"));
    assert_eq!(inversion.metadata().get("step").map(String::as_str), Some("7"));
}

#[test]
fn nothing_but_tensors_can_be_named_or_called() {
    assert!(refused(b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R").contains("`os.system`"));
    assert!(refused(b"\x8c\x08builtins\x8c\x04eval\x93").contains("`builtins.eval`"));
    assert!(
        refused(b"ctorch.storage\n_load_from_bytes\nC\x00\x85R")
            .contains("`torch.storage._load_from_bytes`")
    );
    assert!(refused(b"ctorch\nload\n").contains("`torch.load`"));
    assert!(refused(b"ccollections\nOrderedDict\n]K\x01a\x85R").contains("pairs"));
    assert!(refused(b"ccollections\nOrderedDict\nK\x01R").contains("cannot be called"));
    // INST, OBJ, NEWOBJ, EXT1, PERSID: operations that make objects.
    for operation in [b"ios\nsystem\n".as_slice(), b"(o", b"\x82\x01", b"Pkey\n"] {
        assert!(refused(operation).contains("pickle operation"), "{operation:?}");
    }
    // Only a holder of tensors can be made as an object, and none of its class is run.
    assert!(
        refused(b"ccollections\nOrderedDict\n)\x81").contains("makes an object of OrderedDict")
    );
    assert!(
        refused(b"ctorch.nn.modules.container\nParameterDict\nK\x01\x85\x81")
            .contains("makes an object")
    );
    assert!(refused(b"K\x01)\x81").contains("no class"));
    assert!(refused(b"ctorch.nn.modules.container\nParameterDict\n)R").contains("other arguments"));
    assert!(refused(b"ctorch.nn.modules.container\nModuleDict\n").contains("ModuleDict"));
    assert!(refused(b"K\x01K\x02b").contains("attributes"));
    assert!(refused(b"(t)QR").contains("storage"));
    assert!(refused(b"h\x07").contains("not there"));
    assert!(refused(b"00").contains("never made"));
    assert!(
        refused(b"(}u").contains("never made")
            || refused(b"(}u").contains("other than a dictionary")
    );
}

const TOO_MUCH: &str = "more work and memory than any file";

fn long_text(length: usize) -> Vec<u8> {
    let mut text = vec![b'X'];
    text.extend((length as u32).to_le_bytes());
    text.resize(text.len() + length, b'a');
    text
}

/// Small files that ask for very much: `(what, object, words of the error)`.
fn bombs() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let key = |n: u32| [b"J".as_slice(), &n.to_le_bytes()].concat();
    let mut bombs = Vec::new();
    // One long text as the value of very many keys, then as the key of very many dictionaries'
    // values.
    let mut text = long_text(1 << 20);
    text.extend(b"q\x000}(");
    (0..20_000).for_each(|n| text.extend([key(n).as_slice(), b"h\x00"].concat()));
    text.push(b'u');
    bombs.push(("a text that many keys name", text, TOO_MUCH));
    let mut names = long_text(1 << 20);
    names.extend(b"q\x000}h\x00}(");
    (0..20_000).for_each(|n| names.extend([key(n).as_slice(), b"K\x01"].concat()));
    names.extend(b"us");
    bombs.push(("a name that many values have", names, TOO_MUCH));
    // A long tuple as the arguments of very many calls, and as the pairs of an OrderedDict, and as
    // a tensor's shape.
    let mut calls = b"ccollections\nOrderedDict\nq\x000(".to_vec();
    calls.extend(b"N".repeat(1_900_000));
    calls.extend(b"tq\x010");
    calls.extend(b"h\x00h\x01R".repeat(20_000));
    bombs.push(("a tuple that is called with", calls, "1900000 arguments"));
    let mut pairs = b"ccollections\nOrderedDict\nq\x000(".to_vec();
    pairs.extend(b"K\x01K\x02\x86".repeat(200_000));
    pairs.extend(b"l\x85q\x010");
    pairs.extend(b"h\x00h\x01R0".repeat(20_000));
    bombs.push(("pairs that are copied", pairs, TOO_MUCH));
    let mut shapes =
        b"ctorch._utils\n_rebuild_tensor_v2\nq\x000(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
            .to_vec();
    shapes.extend(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQq\x020(");
    shapes.extend(b"K\x01".repeat(500_000));
    shapes.extend(b"tq\x010");
    shapes.extend(b"h\x00(h\x02K\x00h\x01h\x01tR0".repeat(20_000));
    bombs.push(("a shape of many dimensions", shapes, "500000 dimensions"));
    // A stack of copies; numbers of many digits; lists of lists.
    let mut stack = b"Nq\x00".to_vec();
    stack.extend(b"h\x00".repeat(8_000_000));
    bombs.push(("a stack of copies", stack, TOO_MUCH));
    bombs.push(("lists", b"]".repeat(6_000_000), TOO_MUCH));
    bombs.push(("dictionaries", b"}".repeat(6_000_000), TOO_MUCH));
    bombs
}

#[test]
fn zip_entries_cannot_lie_over_each_other() {
    // Every storage's entry is the same bytes of the archive.
    let data = vec![0u8; 4000];
    let mut crc = flate2::Crc::new();
    let mut pickle = b"\x80\x02](".to_vec();
    for n in 0..100 {
        pickle.extend(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x03\x00\x00\x00");
        pickle.extend(format!("{n:03}").bytes());
        pickle.extend(b"X\x03\x00\x00\x00cpuM\xe8\x03tQ");
    }
    pickle.extend(b"e.");
    let mut bytes = Vec::new();
    let local = |bytes: &mut Vec<u8>, data: &[u8]| {
        let at = bytes.len() as u32;
        bytes.extend(b"PK\x03\x04");
        bytes.resize(bytes.len() + 26, 0);
        bytes.extend(data);
        at
    };
    let (first, second) = (local(&mut bytes, &pickle), local(&mut bytes, &data));
    let mut directory = Vec::new();
    let mut entry = |name: &str, data: &[u8], at: u32| {
        crc.reset();
        crc.update(data);
        let start = directory.len();
        directory.extend(b"PK\x01\x02");
        directory.resize(start + 46, 0);
        directory[start + 16..start + 20].copy_from_slice(&crc.sum().to_le_bytes());
        directory[start + 24..start + 28].copy_from_slice(&(data.len() as u32).to_le_bytes());
        directory[start + 28..start + 30].copy_from_slice(&(name.len() as u16).to_le_bytes());
        directory[start + 42..start + 46].copy_from_slice(&at.to_le_bytes());
        directory.extend(name.bytes());
    };
    entry("a/data.pkl", &pickle, first);
    (0..100).for_each(|n| entry(&format!("a/data/{n:03}"), &data, second));
    let at = bytes.len() as u32;
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([101u16.to_le_bytes(), 101u16.to_le_bytes()].concat());
    bytes.extend([(directory.len() as u32).to_le_bytes(), at.to_le_bytes()].concat());
    bytes.extend([0, 0]);
    let error = read(&bytes).unwrap_err();
    assert!(error.contains("lies over another entry"), "{error}");
}

/// Runs a test of this file in a process of its own that may have no more than a gigabyte of
/// memory.
#[cfg(target_os = "linux")]
fn within_a_gigabyte(test: &str) -> bool {
    const INSIDE: &str = "MOS_TEST_WITHIN_A_GIGABYTE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let name = format!("checkpoint::tests::pickles::{test}");
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -v 1048576; exec \"$0\" --exact \"$1\" --nocapture"]);
    let output =
        limited.arg(std::env::current_exe().unwrap()).arg(name).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
    false
}

#[cfg(target_os = "linux")]
#[test]
fn bombs_are_refused_within_a_gigabyte_and_soon() {
    if !within_a_gigabyte("bombs_are_refused_within_a_gigabyte_and_soon") {
        return;
    }
    for (what, object, word) in bombs() {
        let start = std::time::Instant::now();
        let error = refused(&object);
        assert!(error.contains(word) && error.len() < 1000, "{what}: {error}");
        let seconds = start.elapsed().as_secs_f64();
        // A second or so; without a budget, hours.
        assert!(seconds < 120.0, "{what} took {seconds} s");
    }
}

/// Programs of operations that copy, call and nest more than they take: none may need more than
/// what it is worth.
#[cfg(target_os = "linux")]
#[test]
fn random_programs_stay_within_a_gigabyte() {
    if !within_a_gigabyte("random_programs_stay_within_a_gigabyte") {
        return;
    }
    let mut below = numbers(3);
    let start = std::time::Instant::now();
    for _ in 0..300 {
        let mut object = b"ccollections\nOrderedDict\nq\x000".to_vec();
        object.extend(long_text(below(1 << 20)));
        object.extend(b"q\x01]q\x02}q\x03(N)q\x04");
        for _ in 0..below(40) {
            let pieces: [&[u8]; 14] = [
                b"h\x01",
                b"h\x02",
                b"h\x03",
                b"h\x04",
                b"2",
                b"\x86q\x04",
                b"]q\x02",
                b"(h\x04h\x04h\x04tq\x04",
                b"h\x00)R",
                b"h\x00h\x02\x85R",
                b"h\x02h\x01a",
                b"h\x03h\x01h\x04s",
                b"h\x02(h\x01h\x04h\x03e",
                b"(",
            ];
            let piece = pieces[below(pieces.len())];
            object.extend(piece.repeat(1 + below(3000)));
        }
        let mut bytes =
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02"
                .to_vec();
        bytes.extend(&object);
        bytes.extend(b"h\x03.\x80\x02].");
        let _ = read(&bytes);
    }
    assert!(start.elapsed().as_secs() < 600, "{:?}", start.elapsed());
}

/// Numbers below what is asked for (xorshift64), the same in every run.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = 88172645463325252u64.wrapping_mul(seed | 1);
    move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % n.max(1)
    }
}

/// As textual inversion's own program saves: its embeddings are a module, whose tensors are among
/// its attributes.
#[test]
fn a_holder_of_tensors_is_a_dictionary() {
    let text = |text: &str| {
        [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
    };
    let empty = b"ccollections\nOrderedDict\n)R".to_vec();
    let tensor = [
        b"ctorch._utils\n_rebuild_parameter\n(ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        b"K\x02NtQK\x00K\x02\x85K\x01\x85\x89".to_vec(),
        empty.clone(),
        b"tR\x88".to_vec(),
        empty.clone(),
        b"tR".to_vec(),
    ];
    let class = b"ctorch.nn.modules.container\nParameterDict\n".to_vec();
    // With its source text, as older versions save a class.
    let with_source = [
        b"(".to_vec(),
        text("module"),
        class.clone(),
        text("container.py"),
        text("class"),
        b"tQ".to_vec(),
    ];
    for class in [class, with_source.concat()] {
        let file = read(&holder(&class, &tensor.concat(), &empty, text)).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["string_to_param.*"]);
        assert_eq!(file.tensor("string_to_param.*").unwrap().to_f32(0..2), [1.0, 2.0]);
    }
}

/// A file of one holder, of the class that is named so, with one tensor of two numbers.
fn holder(class: &[u8], tensor: &[u8], empty: &[u8], text: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let object = [
        b"}".to_vec(),
        text("string_to_param"),
        [class, b")\x81}("].concat(),
        text("training"),
        b"\x88".to_vec(),
        text("_parameters"),
        [b"}".to_vec(), text("*"), tensor.to_vec(), b"s".to_vec()].concat(),
        text("_buffers"),
        empty.to_vec(),
        text("_non_persistent_buffers_set"),
        b"c__builtin__\nset\n]\x85R".to_vec(),
        b"ubs".to_vec(),
    ];
    let mut bytes =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02".to_vec();
    bytes.extend(object.concat());
    bytes.extend([b".\x80\x02]".to_vec(), text("0"), b"a.".to_vec()].concat());
    bytes.extend(2u64.to_le_bytes());
    bytes.extend([1f32, 2.0].iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

#[test]
fn small_files_cannot_ask_for_much() {
    // A dictionary within a dictionary, a hundred thousand times; a list that holds itself; one
    // that is doubled again and again.
    let mut deep = b"}K\x00".repeat(100_000);
    deep.push(b'}');
    deep.extend(b"s".repeat(100_000));
    assert!(refused(&deep).contains("nested too deeply"));
    let mut nested = b"]".repeat(100_000);
    nested.extend(b"a".repeat(99_999));
    assert!(refused(&nested).contains("nested too deeply"));
    assert!(refused(b"]q\x00h\x00a").contains("nested too deeply"));
    let mut doubled = b"]q\x00K\x01a".to_vec();
    for i in 1..60u8 {
        doubled.extend([b']', b'q', i, b'h', i - 1, b'a', b'h', i - 1, b'a']);
    }
    assert!(
        refused(&doubled).contains("hold too much")
            || refused(&doubled).contains("nested too deeply")
    );
    let mut copies = b"ccollections\nOrderedDict\nq\x00(".to_vec();
    copies.extend(b"K\x01K\x02\x86".repeat(2000));
    copies.extend(b"lq\x01\x85q\x02");
    copies.extend(b"h\x00h\x02R".repeat(2000));
    // Four million values out of some 30 kB: less than is allowed, but the dictionaries hold more
    // than any file of tensors.
    assert!(refused(&copies).contains("hold too much") || refused(&copies).contains(TOO_MUCH));
    assert!(refused(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f").contains("too early"));
}

#[test]
fn zip_archives_are_checked() {
    let whole = concept("inversion.pt");
    assert!(read(&whole[..whole.len() - 30]).unwrap_err().contains("directory"));
    let mut damaged = whole.clone();
    let at = whole
        .windows(5)
        .position(|w| w == b"ink\x94q".as_slice())
        .or(whole.windows(3).position(|w| w == b"ink"))
        .unwrap();
    damaged[at] ^= 1;
    assert!(read(&damaged).unwrap_err().contains("checksum"));
    let mut stream = Vec::new();
    stream.extend_from_slice(b"PK\x05\x06");
    stream.resize(22, 0);
    assert!(read(&stream).unwrap_err().contains("no `data.pkl`"));
}

/// The same archive with all of its numbers where zip64 has them.
fn as_zip64(whole: &[u8]) -> Vec<u8> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([whole[at], whole[at + 1]]));
    let u32_at = |at: usize| u32::from_le_bytes(whole[at..at + 4].try_into().unwrap());
    let end = whole.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
    let (count, start) = (u16_at(end + 10), u32_at(end + 16) as usize);
    let mut bytes = whole[..start].to_vec();
    let mut at = start;
    for _ in 0..count {
        let [name, extra, comment] = [28, 30, 32].map(|place| u16_at(at + place));
        let mut record = whole[at..at + 46 + name].to_vec();
        let numbers = [24, 20, 42].map(|place| u64::from(u32_at(at + place)).to_le_bytes());
        [20, 24, 42].into_iter().for_each(|place| record[place..place + 4].fill(0xff));
        // Behind a field of another program.
        let more = [&[0x55, 0x54, 2, 0, 9, 9][..], &[1, 0, 24, 0], &numbers.concat()].concat();
        record[30..32].copy_from_slice(&(more.len() as u16).to_le_bytes());
        record[32..34].fill(0);
        bytes.extend([record, more].concat());
        at += 46 + name + extra + comment;
    }
    let (length, large) = ((bytes.len() - start) as u64, bytes.len() as u64);
    bytes.extend(b"PK\x06\x06");
    bytes.extend(44u64.to_le_bytes());
    bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let numbers = [count as u64, count as u64, length, start as u64];
    numbers.into_iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    bytes.extend(b"PK\x06\x07\0\0\0\0");
    bytes.extend(large.to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([0xff; 12]);
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn archives_with_numbers_of_64_bits_are_read() {
    let whole = concept("mix-of-show.pth");
    let (small, large) = (read(&whole).unwrap(), read(&as_zip64(&whole)).unwrap());
    assert!(small.len() > 3 && small.names().eq(large.names()));
    for name in small.names() {
        let (a, b) = (small.tensor(name).unwrap(), large.tensor(name).unwrap());
        assert_eq!((a.dtype(), a.shape(), a.bytes()), (b.dtype(), b.shape(), b.bytes()), "{name}");
    }
    // Damage of those records is told, too, and none of it panics.
    let large = as_zip64(&whole);
    let directory = large.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    for (at, value) in (directory..large.len()).step_by(7).zip([0, 1, 0x7f, 0xff].iter().cycle()) {
        let mut damaged = large.clone();
        damaged[at] = *value;
        let _ = read(&damaged);
    }
    let at = large.windows(4).position(|w| w == b"PK\x06\x07").unwrap();
    let mut damaged = large.clone();
    damaged[at + 8..at + 16].fill(0xff);
    assert!(read(&damaged).unwrap_err().contains("directory"));
}

#[test]
fn damaged_pickles_never_panic() {
    let mut below = numbers(1);
    let mut read_well = 0;
    for name in ["mix-of-show.legacy.pth", "inversion.pt", "inversion.bin"] {
        let whole = concept(name);
        // The checksums of an archive keep most damage away from the machine: there the legacy
        // format stands for both.
        for _ in 0..1500 {
            let mut bytes = whole.clone();
            for _ in 0..=below(4) {
                let at = below(bytes.len().min(4000));
                match below(4) {
                    0 => bytes.truncate(below(bytes.len() + 1)),
                    1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = below(256) as u8),
                    2 => drop(bytes.drain(at.min(bytes.len())..(at + below(9)).min(bytes.len()))),
                    _ => bytes
                        .iter_mut()
                        .skip(at)
                        .take(1)
                        .for_each(|b| *b = b"()]}.QRbqhKJX"[below(13)]),
                }
            }
            read_well += usize::from(read(&bytes).is_ok());
        }
    }
    assert!((1..4500).contains(&read_well), "{read_well}");
}
