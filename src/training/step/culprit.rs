//! Where a number that is not finite was made, in words for people who know models and not this
//! program's operations.

/// The operation, and the layer that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Culprit {
    pub operation: String,
    pub layer: String,
}

/// Looks at one operation's result after another, in the order in which they are computed.
pub(super) struct Search {
    /// The layer that was computed last: what belongs to none (losses, sums of gradients) follows
    /// on it.
    layer: String,
    pub found: Option<Culprit>,
}

impl Search {
    pub fn new() -> Search {
        // Before every layer stand the embeddings of the words.
        Search { layer: "text_model.embeddings.token_embedding".into(), found: None }
    }

    /// Whether the search goes on after this result.
    pub fn look(&mut self, operation: &str, layer: &str, values: &[f32]) -> bool {
        if !layer.is_empty() && self.layer != layer {
            self.layer = layer.to_string();
        }
        if values.iter().all(|v| v.is_finite()) {
            return true;
        }
        let behind = if layer.is_empty() { " behind the end" } else { "" };
        self.found = Some(Culprit {
            operation: format!("{}{behind}", in_words(operation)),
            layer: self.layer.clone(),
        });
        false
    }
}

/// An operation of the graph as people call it.
fn in_words(operation: &str) -> String {
    let words = match operation {
        "linear" => "a matrix product",
        "linear_transposed" | "linear_weight_gradient" => "the gradient of a matrix product",
        "conv2d" => "a convolution",
        "conv2d_transposed" => "the gradient of a convolution",
        "attention" | "regional attention" => "the attention",
        "attention_rows" | "attention_queries_gradient" | "attention_keys_values_gradient" => {
            "the gradient of the attention"
        }
        "group_norm" | "group_norm_statistics" => "the group norm",
        "group_norm_means" | "group_norm_gradient" => "the gradient of the group norm",
        "layer_norm" => "the layer norm",
        "layer_norm_gradient" => "the gradient of the layer norm",
        "silu" | "gelu" | "gelu_tanh" | "quick_gelu" | "relu" | "exp" | "geglu" => {
            "the activation function"
        }
        "activation_gradient" | "geglu_gradient" => "the gradient of the activation function",
        "embedding" => "the look-up of embeddings",
        "embedding_gradient" => "the gradient of embeddings",
        "low_rank_gate" | "narrow" | "narrow_transposed" | "narrow_conv2d" | "widen" => "the LoRA",
        "rows" | "columns" | "window" => "the gradient of the LoRA",
        "add" | "sum_to" | "outer_sums" => "a sum",
        "multiply" | "scale" => "a multiplication",
        "adamw" => "the optimiser",
        "over_greatest" | "over_greatest_gradient" => "the attention regularisation",
        other => return other.replace('_', " "),
    };
    words.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_no_layer_follows_on_the_last_one() {
        let mut search = Search::new();
        assert!(search.look("linear", "unet.conv_in", &[0.0]));
        assert!(search.look("reshape", "", &[1.0]));
        assert!(!search.look("sum_to", "", &[1.0, f32::INFINITY]));
        let expected =
            Culprit { operation: "a sum behind the end".into(), layer: "unet.conv_in".into() };
        assert_eq!(search.found, Some(expected));
        let mut search = Search::new();
        assert!(!search.look("attention_rows", "mid_block.attn1", &[f32::NAN]));
        let expected = Culprit {
            operation: "the gradient of the attention".into(),
            layer: "mid_block.attn1".into(),
        };
        assert_eq!(search.found, Some(expected));
        let mut search = Search::new();
        search.look("embedding", "", &[f32::NAN]);
        assert!(search.found.is_some_and(|found| found.layer.starts_with("text_model.embeddings")));
    }
}
