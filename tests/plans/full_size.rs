//! The published models have the published number of parameters.

use std::collections::HashMap;

use mixofshow::graph::{Node, Origin};

use super::published::{self, Built};

fn parameters(graphs: &[Built]) -> usize {
    let parameter = |node: &Node| match &node.origin {
        Origin::Parameter { name } => Some((name.clone(), node.shape.elements())),
        _ => None,
    };
    graphs
        .iter()
        .flat_map(|built| built.graph.nodes().iter().filter_map(parameter))
        .collect::<HashMap<_, _>>()
        .values()
        .sum()
}

#[test]
fn full_models_have_the_published_number_of_parameters() {
    for (config, count) in [
        (published::unet_1(), 859_520_964),
        (published::unet_2(), 865_910_724),
        (published::unet_xl(), 2_567_463_684),
    ] {
        let built = published::unet("unet", &config, 2, 64, 64, false);
        assert_eq!(built.graph.shape(built.outputs[0])[..], [2, 64, 64, 4]);
        assert_eq!(parameters(&[built]), count);
    }
    let autoencoder = published::autoencoder();
    let both = [
        published::encoder("encoder", &autoencoder, 512, 512),
        published::decoder("decoder", &autoencoder, 512, 512),
    ];
    assert_eq!(both[0].graph.shape(both[0].outputs[0])[..], [1, 64, 64, 4]);
    assert_eq!(both[1].graph.shape(both[1].outputs[0])[..], [1, 512, 512, 3]);
    assert_eq!(parameters(&both), 83_653_863);
    let projection = 768 * 768;
    assert_eq!(
        parameters(&[published::text("text", &published::text_1(), 1)]),
        123_060_480 + projection
    );
    assert_eq!(parameters(&[published::text("text", &published::text_xl(), 1)]), 694_659_840);
    assert_eq!(
        parameters(&[published::vision_tower("vision", &published::vision(), 1)]),
        87_849_216
    );
}
