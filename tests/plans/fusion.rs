//! What fusion asks of a device while it records a concept's inputs.

use mixofshow::fusion::StatisticsCost;
use mixofshow::models::config::UNetConfig;
use mixofshow::models::unet::cross_attentions;
use serde_json::Value;

use super::published::{self, Built};

/// The linear layers of all attentions but keys and values of the text: what concepts change by
/// default, and is recorded.
fn attention_layers(config: &UNetConfig) -> Vec<String> {
    let of = |name: &str| {
        let first = name.replace(".attn2", ".attn1");
        let both = [format!("{name}.to_q"), format!("{name}.to_out.0")];
        both.into_iter()
            .chain(["to_q", "to_k", "to_v", "to_out.0"].map(|part| format!("{first}.{part}")))
            .collect::<Vec<_>>()
    };
    cross_attentions(config).iter().flat_map(|attention| of(&attention.name)).collect()
}

fn record(config: &Value, size: [usize; 2]) -> StatisticsCost {
    let config = UNetConfig::from_json(config, std::path::Path::new("config.json")).unwrap();
    StatisticsCost::of(&config, &attention_layers(&config), size, 77, 128 << 20).unwrap()
}

pub fn recorded_unet(name: &str, config: &Value, size: [usize; 2]) -> Built {
    let StatisticsCost { graph, outputs, .. } = record(config, size);
    Built { name: format!("{name} {}x{} recorded", size[0], size[1]), graph, outputs }
}

/// Host and device together, for any number of concepts: one is recorded at a time, and its sums go
/// to a file.
#[test]
fn statistics_of_the_published_model_fit_their_bound() {
    let recording = record(&published::unet_1(), [64, 64]);
    let (device, host) = (recording.device_bytes, recording.host_bytes);
    println!("sums: {} MB on the device, {} MB on the host", device / 1_000_000, host / 1_000_000);
    assert!(device + host <= 1_200_000_000, "{device} + {host} bytes");
    // Of 4 inputs in each of 16 blocks (q, k and v share theirs), and the sampler's state.
    assert_eq!(recording.graph.assignments().len(), 4 * 16 + 1);
    let squares = [320usize, 640, 1280].map(|n| n * n);
    let elements = 4 * (5 * squares[0] + 5 * squares[1] + 6 * squares[2]);
    assert_eq!(device, 8 * elements as u64);
}
