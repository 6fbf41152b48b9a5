//! `mos serve`
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use mixofshow::NumberRange as Range;
use mixofshow::backend::Precision;
use mixofshow::server::{self, Options, Server};

use super::terminal::Terminal;
use super::{Failure, Global, Result, files, interrupt, values};

const ADDRESS: &str = "Who may ask";
const FOLDERS: &str = "Folders";
const LIMITS: &str = "Limits";

const EXAMPLES: &str = "\
Examples:
  The small model that ships with the program; the page is at http://127.0.0.1:7860
    mos serve
  Models and concepts of yours, pictures kept in a folder:
    mos serve --models models --concepts concepts --output pictures
  For other machines, which have to know a token:
    MOS_TOKEN=$(openssl rand -hex 24) mos serve --host 0.0.0.0 --models models

Clients of AUTOMATIC1111's web UI take http://127.0.0.1:7860 as its address, those of OpenAI
http://127.0.0.1:7860/v1. Ctrl-C ends the server, and what it is at at its next step.";

/// Serve pictures over HTTP: a page for browsers, and the APIs of web UIs and OpenAI
///
/// Serves a page on which regions are drawn and pictures are asked for, and three APIs before one
/// queue: that of AUTOMATIC1111's web UI (/sdapi/v1), OpenAI's for pictures (/v1), and its own
/// (/api, described at /api/openapi.json). The same settings give the same files as `mos generate`.
/// Requests name models and concepts by what lies in the given folders; nothing else is reached.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Address to listen on; others than this machine's own ask for --token
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    #[arg(help_heading = ADDRESS)]
    host: IpAddr,
    /// Port to listen on; 0: any that is free
    #[arg(long, value_name = "PORT", default_value_t = 7860, help_heading = ADDRESS)]
    #[arg(value_parser = values::PORT.parser::<u16>())]
    port: u16,
    /// What clients have to show, 16 characters or more: as `Authorization: Bearer TOKEN`, or as
    /// the password that a browser asks for
    #[arg(long, env = "MOS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    #[arg(help_heading = ADDRESS)]
    token: Option<String>,
    /// Another name that this machine is called by; may be repeated
    ///
    /// Requests have to name the server by its address, as `localhost`, or so: a page of somebody
    /// else can make a browser ask, but not by these names.
    #[arg(long, value_name = "NAME", help_heading = ADDRESS)]
    name: Vec<String>,
    /// Another page that may ask, such as http://localhost:3000; may be repeated
    #[arg(long, value_name = "ORIGIN", help_heading = ADDRESS)]
    origin: Vec<String>,

    /// Folder with models, files or folders of diffusers'; may be repeated; the first model by name
    /// is taken where none is asked for, and what is fused goes into the first folder [default: the
    /// model that ships]
    #[arg(long, value_name = "FOLDER", help_heading = FOLDERS)]
    models: Vec<PathBuf>,
    /// Folder with concepts and LoRAs; may be repeated; what is taught goes into the first
    #[arg(long, value_name = "FOLDER", help_heading = FOLDERS)]
    concepts: Vec<PathBuf>,
    /// Folder with folders of pictures to teach from; may be repeated
    #[arg(long, value_name = "FOLDER", help_heading = FOLDERS)]
    pictures: Vec<PathBuf>,
    /// Folder to keep pictures in; what lies there is the gallery
    #[arg(short, long, value_name = "FOLDER", help_heading = FOLDERS)]
    output: Option<PathBuf>,
    /// How weights are held on the device: as-stored, f16, f32, or q8_0 (8-bit blocks, on the
    /// processor)
    #[arg(long, value_name = "TYPE", default_value_t, help_heading = FOLDERS)]
    precision: Precision,

    /// Most jobs that wait [default: 32]
    #[arg(long, value_name = "COUNT", value_parser = Range::whole(1, 10_000).parser::<usize>())]
    #[arg(help_heading = LIMITS)]
    most_waiting: Option<usize>,
    /// Most sampling steps of a picture [default: 150]
    #[arg(long, value_name = "COUNT", value_parser = Range::COUNT.parser::<usize>())]
    #[arg(help_heading = LIMITS)]
    most_steps: Option<usize>,
    /// Most updates of a concept that is taught [default: 20000]
    #[arg(long, value_name = "COUNT", value_parser = Range::COUNT.parser::<usize>())]
    #[arg(help_heading = LIMITS)]
    most_updates: Option<usize>,
    /// Most pictures of a job [default: 16]
    #[arg(long, value_name = "COUNT", value_parser = Range::whole(1, 1024).parser::<usize>())]
    #[arg(help_heading = LIMITS)]
    most_pictures: Option<usize>,
    /// Most pixels of a picture, as those of a square with sides of so many [default: 2048]
    #[arg(long, value_name = "SIDE", value_parser = Range::whole(8, 11_584).parser::<usize>())]
    #[arg(help_heading = LIMITS)]
    most_side: Option<usize>,
    /// Models that stay loaded [default: 2]
    #[arg(long, value_name = "COUNT", value_parser = Range::whole(1, 100).parser::<usize>())]
    #[arg(help_heading = LIMITS)]
    keep_models: Option<usize>,
}

impl Arguments {
    fn options(&self) -> Options {
        let mut options = Options {
            address: SocketAddr::new(self.host, self.port),
            token: self.token.clone().filter(|token| !token.is_empty()),
            names: self.name.clone(),
            origins: self.origin.clone(),
            models: self.models.clone(),
            concepts: self.concepts.clone(),
            pictures: self.pictures.clone(),
            out: self.output.clone(),
            precision: self.precision,
            ..Options::default()
        };
        if options.models.is_empty() {
            options.models.extend(files::models());
        }
        let limits = &mut options.limits;
        limits.waiting = self.most_waiting.unwrap_or(limits.waiting);
        limits.steps = self.most_steps.unwrap_or(limits.steps);
        limits.updates = self.most_updates.unwrap_or(limits.updates);
        limits.batch = self.most_pictures.unwrap_or(limits.batch);
        limits.pixels = self.most_side.map_or(limits.pixels, |side| side * side);
        limits.models = self.keep_models.unwrap_or(limits.models);
        options
    }
}

pub fn run(arguments: &Arguments, global: &Global, terminal: &Terminal) -> Result<()> {
    let options = arguments.options();
    let device = global.open()?;
    terminal.detail(format!("adapter: {}", device.name()));
    let server = Server::bind(device, options).map_err(|error| match error {
        server::Error::Open { .. }
        | server::Error::Token { .. }
        | server::Error::Folder { .. }
        | server::Error::Origin { .. } => Failure::Usage(error.to_string()),
        other => other.into(),
    })?;
    let _watched = interrupt::watched();
    terminal.detail(format!("models: {}", server.models().join(", ")));
    terminal.print(format!("http://{}", server.address()))?;
    // A program that started this one reads the address.
    let _ = std::io::stdout().flush();
    terminal.note("serving; Ctrl-C ends it");
    server.run(&mut interrupt::asked)?;
    terminal.note("ended");
    Ok(())
}
