//! What tuning minimises, composed of other operations.

use super::{Graph, Result, Tensor};

impl Graph {
    /// The sum of `weights * (prediction - target)^2`: `[1]`. All three have one shape.
    ///
    /// Masked noise prediction (squared error times mask, divided by the mask's sum, per image,
    /// then the mean over the images) is this loss with weights of mask / (sum of the image's mask
    /// * number of images), the same for every channel: constants of a step, which cost the device
    ///   nothing. A factor for every image (min-SNR) goes there too.
    pub fn weighted_squared_error(
        &mut self,
        prediction: Tensor,
        target: Tensor,
        weights: Tensor,
    ) -> Result<Tensor> {
        let (shape, other, third) =
            (self.shape(prediction), self.shape(target), self.shape(weights));
        if shape != other || shape != third {
            let message =
                format!("prediction {shape}, target {other} and weights {third} do not fit");
            return Err(self.shape_error("weighted_squared_error", message));
        }
        let minus = self.scale(target, -1.0)?;
        let difference = self.add(prediction, minus)?;
        let weighted = self.multiply(difference, weights)?;
        let squares = self.multiply(weighted, difference)?;
        self.sum(squares)
    }
}
