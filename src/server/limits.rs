//! The most of everything that clients can ask for.

use std::time::Duration;

use crate::pipeline::Request;

use super::problem::Problem;

/// The most of everything that clients can ask for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a request's body, pictures and all.
    pub body: usize,
    /// Pixels of a picture that is made.
    pub pixels: usize,
    /// Pixels of a picture that is sent.
    pub sent_pixels: usize,
    /// Sampling steps.
    pub steps: usize,
    /// Updates of a concept that is taught.
    pub updates: usize,
    /// Pictures of a job.
    pub batch: usize,
    /// Bytes of a prompt, networks and all.
    pub prompt: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// Jobs that are over and still told of.
    pub told: usize,
    /// Bytes of pictures of those.
    pub told_bytes: usize,
    /// Models that stay loaded.
    pub models: usize,
    /// Connections at once.
    pub connections: usize,
    /// For a request's head, and between requests of a connection.
    pub head: Duration,
    /// For a request's body.
    pub sending: Duration,
    /// For a client that takes nothing of its answer.
    pub taking: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 64 << 20,
            pixels: 2048 * 2048,
            sent_pixels: 4096 * 4096,
            steps: 150,
            updates: 20_000,
            batch: 16,
            prompt: 32 << 10,
            waiting: 32,
            told: 64,
            told_bytes: 256 << 20,
            models: 2,
            connections: 256,
            head: Duration::from_secs(10),
            sending: Duration::from_secs(60),
            taking: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Whether so much may be asked for; what only the model knows is checked by it.
    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        let most = |name, found: usize, most: usize| match found > most {
            true => Err(Problem::value(name, found, &format!("{most} at most"))),
            false => Ok(()),
        };
        most("steps", request.steps, self.steps)?;
        most("batch", request.batch, self.batch)?;
        if request.batch == 0 {
            return Err(Problem::value("batch", 0, "1 or more"));
        }
        let sides = [("width", request.width), ("height", request.height)];
        for (name, side) in sides {
            // The other one is at least of one latent, so that this side alone tells.
            most(name, side.unwrap_or_default(), self.pixels)?;
        }
        if let [(_, Some(width)), (_, Some(height))] = sides {
            self.check_size(width, height)?;
        }
        let regions = request.regions.regions.iter();
        let texts = regions.flat_map(|region| [Some(&region.prompt), region.negative.as_ref()]);
        let own = [Some(&request.prompt), Some(&request.negative_prompt)];
        for text in own.into_iter().chain(texts).flatten() {
            if text.len() > self.prompt {
                let found = format!("{} bytes long", text.len());
                return Err(Problem::value("a prompt", found, &format!("{} at most", self.prompt)));
            }
        }
        Ok(())
    }

    /// Whether a picture of that size may be made.
    pub(super) fn check_size(&self, width: usize, height: usize) -> Result<(), Problem> {
        match width.checked_mul(height).is_some_and(|pixels| pixels <= self.pixels) {
            true => Ok(()),
            false => {
                let expected = format!("{} pixels in all at most", self.pixels);
                Err(Problem::value("size", format!("{width}x{height}"), &expected))
            }
        }
    }
}
