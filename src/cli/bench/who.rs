//! The tower that tells who is who.
use std::path::PathBuf;

use mixofshow::backend::Device;
use mixofshow::checkpoint::{SHIPPED, Tower, TowerKind};
use mixofshow::metrics::VisionTower;
use mixofshow::metrics::survey::SHIPPED_JUDGE;

use crate::cli::Result;
use crate::cli::terminal::Terminal;

#[derive(Debug, clap::Args)]
pub struct Who {
    /// A tower that tells who is who, a folder in the layout of CLIP's vision tower [default: with
    /// the model that ships, the one that ships beside it]
    #[arg(long, value_name = "PATH")]
    identity: Option<PathBuf>,
}

impl Who {
    /// The one that is named, else with the model that ships its own, which is said.
    pub fn open(&self, model: &str, terminal: &Terminal) -> Result<Option<Tower>> {
        match &self.identity {
            Some(path) => Ok(Some(Tower::open(path)?)),
            None if model == SHIPPED => {
                let shipped = Tower::shipped()?;
                if shipped.is_some() {
                    terminal.remark(SHIPPED_JUDGE);
                }
                Ok(shipped)
            }
            None => Ok(None),
        }
    }
}

/// On a device.
pub fn load(gpu: &Device, tower: &Option<Tower>) -> Result<Option<VisionTower>> {
    let load = |tower| VisionTower::load(gpu, tower, &[TowerKind::Clip]);
    Ok(tower.as_ref().map(load).transpose()?)
}
