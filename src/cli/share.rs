//! Which part of the work a job does.

use mixofshow::metrics::survey::Share;

use super::terminal::Terminal;
use super::{Failure, Result};

/// As the option says, else as the environment of a job array does.
pub fn share(part: Option<Share>, terminal: &Terminal) -> Result<Share> {
    if let Some(share) = part {
        return Ok(share);
    }
    let read = |name: &str| std::env::var(name).ok();
    match Share::of_environment(read).map_err(|e| Failure::Usage(e.to_string()))? {
        None => Ok(Share::ALL),
        Some((share, by)) => {
            if share.is_part() {
                terminal.remark(format!("part {share}, as {by} says; --part 1/1 makes all"));
            }
            Ok(share)
        }
    }
}
