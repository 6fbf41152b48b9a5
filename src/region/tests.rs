use super::*;
use crate::picture::Picture;

fn boxed(edges: [f64; 4]) -> Region {
    Region { prompt: "a".into(), area: Area::Box(edges), ..Region::default() }
}

fn placed(regions: Vec<Region>, sizes: &[[usize; 2]]) -> Placed {
    Placed::new(&Layout { regions, ..Layout::default() }, 160, 96, sizes).unwrap()
}

fn problem(regions: Vec<Region>) -> String {
    Placed::new(&Layout { regions, ..Layout::default() }, 160, 96, &[[12, 20]])
        .unwrap_err()
        .to_string()
}

#[test]
fn boxes_go_from_ceil_to_floor_in_pixels_and_fractions() {
    for edges in [[20.0, 0.0, 100.0, 96.0], [0.125, 0.0, 0.625, 1.0]] {
        let placed = placed(vec![boxed(edges)], &[[12, 20], [3, 5]]);
        let columns = |height, width: usize| -> Vec<f32> {
            placed.masks(height, width).unwrap()[0][..width].to_vec()
        };
        // 2.5 .. 12.5 of 20 columns, 0.625 .. 3.125 of 5.
        assert_eq!(columns(12, 20).iter().position(|v| *v == 1.0), Some(3));
        assert_eq!(columns(12, 20).iter().filter(|v| **v == 1.0).count(), 9);
        assert_eq!(columns(3, 5), [0.0, 1.0, 1.0, 0.0, 0.0]);
        assert!(placed.warnings.is_empty());
    }
    // Products that are whole but for rounding are whole.
    let placed = placed(vec![boxed([0.7, 0.0, 1.0, 1.0])], &[[1, 10]]);
    assert_eq!(placed.masks(1, 10).unwrap()[0].iter().sum::<f32>(), 3.0);
}

#[test]
fn small_regions_do_not_vanish() {
    let mut region = boxed([61.0, 33.0, 66.0, 38.0]);
    region.name = Some("ring".into());
    let placed = placed(vec![region], &[[12, 20], [2, 3]]);
    for (height, width) in [(12, 20), (2, 3)] {
        assert_eq!(placed.masks(height, width).unwrap()[0].iter().sum::<f32>(), 1.0);
    }
    assert_eq!(placed.masks(12, 20).unwrap()[0][4 * 20 + 7], 1.0);
    assert!(
        placed.warnings[0].contains("`ring`") && placed.warnings[0].contains("3x2"),
        "{:?}",
        placed.warnings
    );
    let tiny = Region {
        area: Area::Polygon(vec![[0.5, 0.5], [0.51, 0.5], [0.5, 0.52]]),
        ..boxed([0.0; 4])
    };
    let placed = self::placed(vec![tiny], &[[12, 20]]);
    assert_eq!(placed.masks(12, 20).unwrap()[0].iter().sum::<f32>(), 1.0);
    assert_eq!(placed.warnings.len(), 1);
}

/// Facts of the published program: edges are ceil and floor of their place on the map, as Python
/// slices them.
#[test]
fn published_regions_vanish_and_are_cut_off() {
    let placed = |edges: [f64; 4], sizes: &[[usize; 2]]| {
        let layout = Layout { regions: vec![boxed(edges)], published: true, ..Layout::default() };
        Placed::new(&layout, 160, 96, sizes).unwrap()
    };
    let columns = |edges: [f64; 4], width: usize| -> Vec<usize> {
        let placed = placed(edges, &[[12, width]]);
        let mask = &placed.masks(12, width).unwrap()[0];
        (0..width).filter(|x| (0..12).any(|y| mask[y * width + x] == 1.0)).collect()
    };
    // Nothing of it is as large as a cell of the small map.
    let ring = placed([61.0, 33.0, 75.0, 50.0], &[[12, 20], [2, 3]]);
    assert_eq!(ring.masks(12, 20).unwrap()[0].iter().sum::<f32>(), 1.0);
    assert_eq!(ring.masks(2, 3).unwrap()[0].iter().sum::<f32>(), 0.0);
    assert!(
        ring.warnings[0].contains("`1`")
            && ring.warnings[0].contains("3x2: there it does not hold"),
        "{:?}",
        ring.warnings
    );
    // Beyond the end nothing is left; before the start it counts from the end, but for less than a
    // cell.
    assert_eq!(columns([80.0, 0.0, 400.0, 500.0], 20), (10..20).collect::<Vec<_>>());
    assert_eq!(columns([-7.0, 0.0, 80.0, 96.0], 20), (0..10).collect::<Vec<_>>());
    assert_eq!(columns([-80.0, 0.0, 160.0, 96.0], 20), (10..20).collect::<Vec<_>>());
    assert_eq!(columns([100.0, 0.0, 50.0, 96.0], 20), [0; 0]);
    assert!(placed([80.0, 0.0, 400.0, 96.0], &[[12, 20]]).warnings[0].contains("cut off"));
    // Products are as f64 has them: 0.07 times 100 is a little more than 7 there.
    let layout = Layout {
        regions: vec![boxed([7.0, 0.0, 100.0, 100.0])],
        published: true,
        ..Layout::default()
    };
    let all = Placed::new(&layout, 100, 100, &[[100, 100]]).unwrap();
    assert_eq!(all.masks(100, 100).unwrap()[0][..100].iter().position(|v| *v == 1.0), Some(8));
    let json = serde_json::to_string(&layout).unwrap();
    assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
    let picture = Picture::filled(160, 96, [0; 3]).unwrap();
    let beyond = Layout {
        regions: vec![boxed([80.0, 0.0, 400.0, 500.0])],
        published: true,
        ..Layout::default()
    };
    assert_eq!(beyond.draw(&picture).unwrap().pixel(80, 0), Some([230, 159, 0]));
    let error = Placed::new(
        &Layout { regions: vec![boxed([f64::NAN; 4])], ..layout },
        100,
        100,
        &[[10, 10]],
    )
    .unwrap_err();
    assert!(error.to_string().contains("numbers"), "{error}");
}

#[test]
fn masks_that_are_hardly_meant_so_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.png");
    for (colour, word) in [([0; 3], "black all over"), ([255; 3], "white all over")] {
        Picture::filled(160, 96, colour).unwrap().save(&path, None).unwrap();
        let placed =
            placed(vec![Region { area: Area::Mask(path.clone()), ..boxed([0.0; 4]) }], &[[12, 20]]);
        let warning = &placed.warnings[0];
        assert!(
            warning.contains("`1`") && warning.contains("mask.png") && warning.contains(word),
            "{warning}"
        );
    }
}

#[test]
fn polygons_are_filled_and_soft_edges_fade() {
    // A triangle with the right angle at the upper left.
    let triangle = Region {
        area: Area::Polygon(vec![[0.0, 0.0], [160.0, 0.0], [0.0, 96.0]]),
        ..boxed([0.0; 4])
    };
    let map = placed(vec![triangle], &[[12, 20]]);
    let mask = &map.masks(12, 20).unwrap()[0];
    assert_eq!((mask[0], mask[19], mask[11 * 20 + 1], mask[12 * 20 - 1]), (1.0, 0.0, 0.0, 0.0));
    assert!((mask.iter().sum::<f32>() - 120.0).abs() <= 10.0);
    let soft = Region { soft: 32.0, ..boxed([0.0, 0.0, 0.5, 1.0]) };
    let map = placed(vec![soft], &[[12, 20]]);
    let row = &map.masks(12, 20).unwrap()[0][..20];
    // Full at the picture's edge, half at its own, linear between.
    let expected = [1.0, 1.0, 0.875, 0.625, 0.375, 0.125, 0.0];
    row[6..13]
        .iter()
        .zip(expected)
        .for_each(|(found, expected)| assert!((found - expected).abs() < 0.02, "{row:?}"));
    assert_eq!(row[0], 1.0);
}

#[test]
fn thin_and_faded_regions_are_told() {
    // A bar of a cell's width, with a tail of a tenth of one, of which it is the smaller part.
    let tail = vec![[0.0, 0.0], [8.0, 0.0], [8.0, 8.0], [160.0, 8.0], [160.0, 10.0], [0.0, 10.0]];
    let region = |soft: f64, area: Area| Region { area, soft, ..boxed([0.0; 4]) };
    let told = placed(vec![region(0.0, Area::Polygon(tail.clone()))], &[[12, 20], [96, 160]]);
    assert_eq!(told.warnings.len(), 1, "{:?}", told.warnings);
    let says = &told.warnings[0];
    assert!(says.contains("`1`") && says.contains("of 20x12:"), "{says}");
    let faded = placed(vec![region(64.0, Area::Box([0.5, 0.5, 0.51, 0.52]))], &[[12, 20]]);
    assert!(faded.warnings[0].contains("narrower than its soft edge"), "{:?}", faded.warnings);
    let broad = placed(vec![region(8.0, Area::Box([0.2, 0.2, 0.7, 0.7]))], &[[12, 20]]);
    assert!(broad.warnings.is_empty(), "{:?}", broad.warnings);
    // Smaller than a cell in each way.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dot.png");
    let dot = |x: usize, y: usize| if x == 77 && y == 50 { [255; 3] } else { [0; 3] };
    let pixels = (0..160 * 96).flat_map(|i| dot(i % 160, i / 160)).collect();
    Picture::new(160, 96, pixels).unwrap().save(&path, None).unwrap();
    for area in [
        Area::Box([0.5, 0.5, 0.505, 0.505]),
        Area::Polygon(vec![[81.0, 49.0], [83.0, 49.0], [83.0, 51.0]]),
        Area::Mask(path),
    ] {
        let small = placed(vec![region(0.0, area.clone())], &[[12, 20]]);
        assert!(small.warnings[0].contains("too small"), "{area:?}: {:?}", small.warnings);
    }
}

#[test]
fn overlaps_are_averaged_stacked_weighed_and_mixed_with_the_base() {
    let whole = [0.0, 0.0, 1.0, 1.0];
    let row = |regions: Vec<Region>, active: &[bool]| {
        placed(regions, &[[1, 1]]).shares(0, active).weights
    };
    let all = [true; 3];
    assert_eq!(row(vec![], &[]), [1.0]);
    assert_eq!(row(vec![boxed(whole), boxed(whole)], &all), [0.0, 0.5, 0.5]);
    assert_eq!(row(vec![boxed(whole), boxed(whole)], &[false, true]), [0.0, 0.0, 1.0]);
    let heavy = Region { weight: 3.0, ..boxed(whole) };
    assert_eq!(row(vec![heavy.clone(), boxed(whole)], &all), [0.0, 0.75, 0.25]);
    let above = Region { order: 1, ..boxed(whole) };
    assert_eq!(row(vec![above.clone(), boxed(whole)], &all), [0.0, 1.0, 0.0]);
    let mixed = Region { base: 0.25, ..above };
    assert_eq!(row(vec![mixed, heavy], &all), [0.25, 0.75, 0.0]);
    let nothing = Region { weight: 0.0, ..boxed(whole) };
    assert_eq!(row(vec![nothing], &all), [1.0, 0.0]);
    let soft = Region { soft: 1.0, ..boxed([0.0, 0.0, 0.5, 1.0]) };
    for row in placed(vec![soft.clone(), Region { order: 2, ..soft }], &[[12, 20]])
        .shares(0, &all)
        .weights
        .chunks_exact(3)
    {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6 && row.iter().all(|w| *w >= 0.0));
    }
}

#[test]
fn sight_is_shared_within_regions_and_with_what_none_covers() {
    let placed = placed(vec![boxed([0.0, 0.0, 0.6, 1.0]), boxed([0.4, 0.0, 0.8, 1.0])], &[[1, 5]]);
    assert_eq!(placed.shares(0, &[true, true]).sight, [1, 1, 3, 2, u32::MAX]);
}

#[test]
fn regions_hold_for_a_part_of_the_steps() {
    let held = |start, end| (0..10).filter(|&i| holds(start, end, i, 10)).collect::<Vec<_>>();
    assert_eq!(held(0.0, 1.0).len(), 10);
    assert_eq!(held(0.0, 0.3), [0, 1, 2]);
    assert_eq!(held(0.7, 1.0), [7, 8, 9]);
    assert_eq!(held(0.25, 0.45), [3]);
}

#[test]
fn regions_are_read_as_people_type_them() {
    let region = Region::parse("0,0,0.5, 1: a <a1> <a2>, smiling | blurry").unwrap();
    assert_eq!(
        (region.prompt.as_str(), region.negative.as_deref()),
        ("a <a1> <a2>, smiling", Some("blurry"))
    );
    assert_eq!(region.area, Area::Box([0.0, 0.0, 0.5, 1.0]));
    // A bar in square brackets is alternation's.
    let region = Region::parse(": a [red|blue] cat | [dull|dim] | x").unwrap();
    assert_eq!(
        (region.prompt.as_str(), region.negative.as_deref()),
        ("a [red|blue] cat", Some("[dull|dim] | x"))
    );
    assert_eq!(Region::parse(": a [cat | dog").unwrap().negative.as_deref(), Some("dog"));
    let region = Region::parse(": a cat: red").unwrap();
    assert_eq!(
        (region.prompt.as_str(), region.negative, region.area),
        ("a cat: red", None, Area::Whole)
    );
    for (text, word) in [
        ("a cat", "no colon"),
        ("0,0,1: a", "four numbers"),
        ("0,0,x,1: a", "four numbers"),
        ("-0.1,0,1,1: a", "left -0.1"),
        ("0,1,1,0: a", "top before bottom"),
    ] {
        let error = Region::parse(text).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains(text), "{error}");
    }
}

#[test]
fn the_published_grammar_is_read() {
    let text = "[a <p1> <p2>, standing]-*-[cartoon]-*-[10, 20, 300, 200]|[a cat]-*-[]-*-[]|";
    let layout = Layout::from_published(text).unwrap();
    assert_eq!(layout.regions.len(), 2);
    assert_eq!(layout.regions[0].prompt, "a <p1> <p2>, standing");
    assert_eq!(layout.regions[0].negative.as_deref(), Some("cartoon"));
    assert_eq!(layout.regions[0].area, Area::Box([20.0, 10.0, 200.0, 300.0]));
    assert_eq!(
        (layout.regions[1].negative.as_deref(), &layout.regions[1].area),
        (Some(""), &Area::Whole)
    );
    assert!(layout.published);
    for (text, word) in [
        ("", "no region"),
        ("[a]-*-[b]-*-[]||[c]-*-[d]-*-[]", "nothing between"),
        ("[a]-*-[b]", "2 fields"),
        ("[a]-*-[b]-*-[1, 2, 3]", "four numbers"),
        ("[a]-*-[b]-*-__import__('os')", "four numbers"),
        ("[a]-*-[b]-*-[30, 1, 20, 200]", "top 30, left 1, bottom 20, right 200"),
        ("[a]-*-[b]-*-[1, 2, x, 3]", "top, left, bottom, right"),
        ("[a]-*-[b]-*-[0, 0, 1, 1]", "is a pixel at most: these edges are in pixels"),
        ("[a]-*-[b]-*-[0, 0, 0.5, 1]", "is a pixel at most"),
    ] {
        let error = Layout::from_published(text).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn an_empty_prompt_is_taken_in_every_form_and_told() {
    let whole = Region { prompt: String::new(), ..boxed([0.0, 0.0, 1.0, 1.0]) };
    assert_eq!(Region::parse("0,0,1,1:").unwrap(), whole);
    assert_eq!(
        Region::parse("0,0,1,1: | b").unwrap(),
        Region { negative: Some("b".into()), ..whole.clone() }
    );
    assert_eq!(Layout::from_published("[]-*-[b]-*-[]").unwrap().regions[0].prompt, "");
    let toml = |text: &str| toml::from_str::<Layout>(text).unwrap().regions;
    assert_eq!(toml("[[region]]\nprompt = ''\nbox = [0, 0, 1, 1]"), std::slice::from_ref(&whole));
    let warnings = placed(vec![whole], &[[12, 20]]).warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("region `1` has no prompt"),
        "{warnings:?}"
    );
}

#[test]
fn layout_files_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.toml");
    let text = r#"
        prompt = "two in the snow"
        isolate = true
        [[region]]
        name = "left"
        prompt = "a cat"
        negative = "dog"
        box = [0, 0, 0.5, 1]
        soft = 0.1
        weight = 2
        order = 1
        base = 0.2
        start = 0.1
        end = 0.9
        concepts = { "<cat1>" = 0.8 }
        controls = { edges = 0.5 }
        [[region]]
        prompt = "a dog"
        mask = "dog.png"
    "#;
    std::fs::write(&path, text).unwrap();
    let layout = Layout::open(&path).unwrap();
    assert_eq!(
        (layout.prompt.as_deref(), layout.isolate, layout.regions.len()),
        (Some("two in the snow"), true, 2)
    );
    assert_eq!((layout.name(0), layout.name(1)), ("left".to_string(), "2".to_string()));
    assert_eq!(layout.regions[0].controls["edges"], 0.5);
    assert_eq!(layout.regions[1].area, Area::Mask(folder.path().join("dog.png")));
    let json = serde_json::to_string(&layout).unwrap();
    assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
    for (text, word) in [
        ("region = 3", "two.toml"),
        ("[[region]]\nbox = [0, 0, 1, 1]", "prompt"),
        ("[[region]]\nprompt = \"a\"\nbox = [0, 0, 1]", "two.toml"),
        ("[[region]]\nprompt = \"a\"\nboxes = 3", "boxes"),
        ("[[region]]\nprompt = \"a\"\nbox = [0, 0, 1, 1]\nmask = \"a.png\"", "more than one"),
        ("[[region]]\nprompt = \"a\"\nsoft = -1", "soft"),
        ("[[region]]\nprompt = \"a\"\nstart = 0.5\nend = 0.5", "end"),
        ("[[region]]\nprompt = \"a\"\nbase = 2", "base"),
        ("[[region]]\nprompt = \"a\"\nbox = [0, 0, 1, 1, 0.5]", "`box` has 5 numbers, expected 4"),
        ("[[region]]\nprompt = \"a\"\nbox = []", "`box` has 0 numbers"),
        (
            "[[region]]\nprompt = \"a\"\npolygon = [[0, 0], [1, 0, 7], [1, 1]]",
            "corner 2 of `polygon` has 3 numbers",
        ),
        (
            "[[region]]\nprompt = \"a\"\npolygon = [[0, 0], [1], [1, 1]]",
            "corner 2 of `polygon` has 1 number,",
        ),
        ("[[region]]\nprompt = \"a\"\nweight = 1e308", "weight"),
        ("[[region]]\nprompt = \"a\"\nweight = nan", "weight"),
        ("[[region]]\nprompt = \"a\"\nsoft = inf", "soft"),
        ("[[region]]\nprompt = \"a\"\nstart = nan", "start"),
        ("[[region]]\nprompt = \"a\"\nconcepts = { a = 1e30 }", "concepts"),
        ("[[region]]\nprompt = \"a\"\ncontrols = { a = -inf }", "controls"),
        ("[[region]]\nprompt = \"a\"\norder = 99999999999", "order"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Layout::open(&path).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(
        Layout::open(&folder.path().join("none.toml"))
            .unwrap_err()
            .to_string()
            .contains("none.toml")
    );
}

#[test]
fn areas_that_do_not_fit_are_refused() {
    for (edges, word) in [
        ([0.5, 0.0, 0.25, 1.0], "left before right"),
        ([0.0, 50.0, 10.0, 50.0], "top before bottom"),
        ([0.0, 0.0, 161.0, 96.0], "160 x 96"),
        ([-0.1, 0.0, 1.0, 1.0], "none below 0"),
        ([f64::NAN, 0.0, 1.0, 1.0], "none below 0"),
    ] {
        let error = problem(vec![boxed(edges)]);
        assert!(error.contains(word) && error.contains("region `1`"), "{error}");
    }
    for soft in [161.0, 1e9, 1e300] {
        let error = problem(vec![Region { soft, ..boxed([0.0, 0.0, 0.5, 1.0]) }]);
        assert!(
            error.contains("soft") && error.contains("160") && error.contains("region `1`"),
            "{error}"
        );
    }
    assert!(
        problem(vec![Region { area: Area::Polygon(vec![[0.5; 2]; 10_001]), ..boxed([0.0; 4]) }])
            .contains("10001 corners")
    );
    let polygon = |corners| Region { area: Area::Polygon(corners), ..boxed([0.0; 4]) };
    assert!(problem(vec![polygon(vec![[0.0, 0.0], [1.0, 1.0]])]).contains("at least 3"));
    assert!(problem(vec![polygon(vec![[0.0, 0.0], [300.0, 0.0], [9.0, 9.0]])]).contains("300"));
    assert!(problem(vec![boxed([0.0, 0.0, 1.0, 1.0]); 32]).contains("32 regions"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.png");
    let masked = || vec![Region { area: Area::Mask(path.clone()), ..boxed([0.0; 4]) }];
    assert!(problem(masked()).contains("mask.png"));
    Picture::filled(50, 50, [255; 3]).unwrap().save(&path, None).unwrap();
    let error = problem(masked());
    assert!(error.contains("50 x 50") && error.contains("160 x 96"), "{error}");
    Picture::filled(80, 48, [255; 3]).unwrap().save(&path, None).unwrap();
    assert_eq!(placed(masked(), &[[12, 20]]).masks(12, 20).unwrap()[0], vec![1.0; 240]);
    // A mask of another size than the picture is drawn over all of it.
    let layout = Layout { regions: masked(), ..Layout::default() };
    assert_eq!(
        layout.draw(&Picture::filled(160, 96, [0; 3]).unwrap()).unwrap().pixel(159, 95),
        Some([230, 159, 0])
    );
}

#[test]
fn soft_edges_are_as_wide_on_masks_of_any_size() {
    let folder = tempfile::tempdir().unwrap();
    let mask = |width: u32, height: u32| {
        let path = folder.path().join(format!("{width}.png"));
        let left = |i: u32| if i % width < width / 2 { [255; 3] } else { [0; 3] };
        Picture::new(width, height, (0..width * height).flat_map(left).collect())
            .unwrap()
            .save(&path, None)
            .unwrap();
        let region = Region { area: Area::Mask(path), soft: 32.0, ..boxed([0.0; 4]) };
        placed(vec![region], &[[12, 20]]).masks(12, 20).unwrap()[0].clone()
    };
    let (same, twice) = (mask(160, 96), mask(320, 192));
    assert!(
        same.iter().zip(&twice).all(|(a, b)| (a - b).abs() < 0.02),
        "{:?} {:?}",
        &same[..20],
        &twice[..20]
    );
}

#[test]
fn the_most_corners_are_filled_soon() {
    let corner = |i: u32| [f64::from(i) / 10_000.0, if i.is_multiple_of(2) { 0.0 } else { 1.0 }];
    let comb = Region { area: Area::Polygon((0..10_000).map(corner).collect()), ..boxed([0.0; 4]) };
    let start = std::time::Instant::now();
    Placed::new(&Layout { regions: vec![comb], ..Layout::default() }, 512, 512, &[[64, 64]])
        .unwrap();
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn regions_are_drawn() {
    let picture = Picture::filled(160, 96, [0; 3]).unwrap();
    let layout = Layout { regions: vec![boxed([0.5, 0.5, 1.0, 1.0])], ..Layout::default() };
    let drawn = layout.draw(&picture).unwrap();
    assert_eq!(drawn.pixel(10, 10), Some([0; 3]));
    assert_eq!(drawn.pixel(80, 48), Some([230, 159, 0]));
    assert_eq!(drawn.pixel(150, 90), Some([58, 40, 0]));
}
