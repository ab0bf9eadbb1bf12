//! The `tandem` command.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to its terminal")]

use clap::{Parser, Subcommand};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};
use tandem::{
    config::{Checked, Config},
    observe::log,
    shell::{
        admin::AdminCommand,
        cli_check, config_files, core_dumps,
        demo::{self, DemoArgs},
        doctor::{self, DoctorArgs},
        files,
        log_lines::Lines,
        node::{Node, Place},
        places::World,
        service,
        succession::Heritage,
        twilio_sim::{self, SimArgs},
    },
};

/// A message makes and frees many small things, in three threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A SIP back-to-back user agent and PBX between softphones and a carrier's SIP trunk
#[derive(Debug, Parser)]
#[command(name = "tandem", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the PBX
    Run {
        /// The configuration; by default conf/pbx.toml, else /etc/tandem/pbx.toml
        #[arg(short, long, value_name = "FILE")]
        config: Option<String>,
    },
    /// Show the main job: the PBX, a simulated trunk and a phone in one process
    Demo(DemoArgs),
    /// Run a simulated Twilio trunk on loopback
    TwilioSim(Box<SimArgs>),
    /// List every mistake in the configuration and the dialplan
    Check {
        /// The configuration; by default conf/pbx.toml, else /etc/tandem/pbx.toml
        #[arg(short, long, value_name = "FILE")]
        config: Option<String>,
    },
    /// Look at everything that keeps a first call from succeeding, in the order in which people fail
    Doctor(DoctorArgs),
    /// Try the dialplan without a call
    Dialplan {
        /// What about it.
        #[command(subcommand)]
        what: DialplanCommand,
    },
    #[command(flatten)]
    Admin(AdminCommand),
}

#[derive(Debug, Subcommand)]
enum DialplanCommand {
    /// Print every rule that is considered for a call, and the steps that result
    Try {
        /// Who calls: a user, or the number of somebody outside
        #[arg(long, value_name = "USER")]
        from: String,
        /// What is dialled, as a person would
        number: String,
        /// When, at the node: `2026-12-25 10:30`; by default now
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// The configuration; by default conf/pbx.toml, else /etc/tandem/pbx.toml
        #[arg(short, long, value_name = "FILE")]
        config: Option<String>,
    },
    /// Run the `[[test]]` tables of the dialplan
    Test {
        /// The configuration; by default conf/pbx.toml, else /etc/tandem/pbx.toml
        #[arg(short, long, value_name = "FILE")]
        config: Option<String>,
    },
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { config } => run(config.as_deref()),
        Command::Demo(args) => {
            log::init(log::Format::Text, &filter("error"), std::io::stderr)?;
            block_on(async { Ok(done(demo::run(args).await?)) })
        }
        Command::TwilioSim(args) => {
            log::init(log::Format::Text, &filter("info"), std::io::stderr)?;
            block_on(async { Ok(done(twilio_sim::run(*args).await?)) })
        }
        Command::Check { config } => {
            let path = config_files::path(config.as_deref());
            Ok(print(&cli_check::check(path, std::io::stdout().is_terminal())))
        }
        Command::Doctor(args) => block_on(async {
            let output = doctor::run(&args).await;
            print!("{}", output.text);
            Ok(ExitCode::from(output.exit.code()))
        }),
        Command::Dialplan { what } => Ok(print(&dialplan(&what))),
        Command::Admin(command) => block_on(async {
            let socket = socket_of(&command)?;
            let output = command.run(&socket).await;
            print!("{}", output.text);
            Ok(ExitCode::from(output.exit.code()))
        }),
    }
}

fn dialplan(what: &DialplanCommand) -> cli_check::Outcome {
    match what {
        DialplanCommand::Try { from, number, at, config } => {
            let path = config_files::path(config.as_deref());
            cli_check::dialplan_try(path, from, number, at.as_deref())
        }
        DialplanCommand::Test { config } => {
            cli_check::dialplan_test(config_files::path(config.as_deref()))
        }
    }
}

fn print(outcome: &cli_check::Outcome) -> ExitCode {
    print!("{}", outcome.text);
    ExitCode::from(outcome.code)
}

fn done(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn run(config: Option<&str>) -> anyhow::Result<ExitCode> {
    core_dumps::switch_off();
    files::raise_limit();
    let file = config_files::path(config);
    let Checked { config, report, .. } = config_files::load(file);
    for problem in report.problems() {
        eprintln!("{problem}\n");
    }
    // The files' texts are in it.
    drop(report);
    let Some(config) = config else { return Ok(ExitCode::from(1)) };
    let lines = Lines::to(std::io::stderr())?;
    log::init(format_of(&config), &filter(config.log.level.name()), lines.clone())?;
    let place = Place::of(&config, Some(file));
    let _last_words = lines.until_the_end();
    block_on(async move {
        let mut signals = service::Signals::listen()?;
        let heritage = Heritage::claim()?;
        let node = tokio::select! {
            node = Node::start_or_succeed(config, place, heritage) => node?,
            () = signals.end() => return Ok(ExitCode::SUCCESS),
        };
        Ok(match service::run_until_told(node, signals).await {
            service::End::Told => ExitCode::SUCCESS,
            service::End::Died => ExitCode::FAILURE,
        })
    })
}

fn format_of(config: &Config) -> log::Format {
    use tandem::config::LogFormat;
    match config.log.format {
        LogFormat::Json => log::Format::Json,
        LogFormat::Text => log::Format::Text,
    }
}

/// `TANDEM_LOG` overrides the configuration.
fn filter(level: &str) -> String {
    std::env::var("TANDEM_LOG").unwrap_or_else(|_| level.to_owned())
}

/// Finds the socket of the tandem that is asked: named, or where its configuration puts it.
fn socket_of(command: &AdminCommand) -> anyhow::Result<PathBuf> {
    let reach = command.reach();
    if let Some(socket) = &reach.socket {
        return Ok(socket.clone());
    }
    let named = reach.config.as_ref().map(|path| path.to_string_lossy());
    let file = config_files::path(named.as_deref());
    match config_files::load_without_secrets(file).config {
        Some(config) => Ok(Place::of(&config, Some(file)).socket),
        None if named.is_some() => anyhow::bail!("{file} has mistakes: `tandem check` lists them"),
        None => Ok(World::real().control_socket()),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
