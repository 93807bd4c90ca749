//! What every binary can be told: by flags, by environment variables, or not at all.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::ServiceInfo;
use crate::provision::Sizes;

/// The settings of a service that has none of its own.
#[derive(Debug, Clone, Args)]
pub struct NoSettings {}

/// The command line of a service: what all have, and its own.
#[derive(Debug, Parser)]
#[command(max_term_width = 110)]
pub(crate) struct CommandLine<S: Args> {
    #[command(flatten)]
    pub(crate) common: CommonSettings,

    #[command(flatten)]
    pub(crate) own: S,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask the running service whether it is ready; exit 0 if it is
    Healthcheck,

    /// Delete read models in the data directory, so that they are built anew from the log; also while the service runs,
    /// which serves the old one until the new one has caught up
    Rebuild {
        /// Which one, as its file is called: `orders` of `orders.v1.sqlite`; all if none is named
        name: Option<String>,
    },
}

/// What every service can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonSettings {
    /// Where NATS is; several servers of one cluster are separated by commas
    #[arg(
        long,
        env = "NATS_URL",
        value_name = "URLS",
        default_value = "nats://127.0.0.1:4222",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) nats_url: Vec<NatsUrl>,

    /// Name to log in with
    #[arg(long, env = "NATS_USER", value_name = "NAME", requires = "nats_password")]
    pub(crate) nats_user: Option<String>,

    /// Password to log in with
    #[arg(
        long,
        env = "NATS_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        requires = "nats_user"
    )]
    pub(crate) nats_password: Option<Secret>,

    /// File with the nkey seed to log in with, instead of name and password
    #[arg(long, env = "NATS_NKEY_SEED_FILE", value_name = "FILE", conflicts_with = "nats_user")]
    pub(crate) nats_nkey_seed_file: Option<PathBuf>,

    /// File with the certificates (PEM) of the authority that signed the server's; turns TLS on
    #[arg(long, env = "NATS_CA_FILE", value_name = "FILE")]
    pub(crate) nats_ca_file: Option<PathBuf>,

    /// Where to listen for HTTP; port 0 takes a free one and logs it
    #[arg(long, env = "HTTP_ADDR", value_name = "ADDR", required = false)]
    pub(crate) http_addr: SocketAddr,

    /// Directory for the files of this service
    #[arg(long, env = "DATA_DIR", value_name = "DIR", required = false)]
    pub(crate) data_dir: PathBuf,

    /// How many servers keep a copy of each stream; never lowers what a stream has
    #[arg(long, env = "STREAM_REPLICAS", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) replicas: u8,

    /// How large streams may become, in MiB: one size for all, others by name, as in `1024,EVENTS=20480`; never lowers what
    /// a stream has. For an account that requires a limit
    #[arg(long, env = "STREAM_MAX_MIB", value_name = "SIZES", default_value = "", hide_default_value = true)]
    pub(crate) stream_max_mib: Sizes,

    /// How long to finish what runs when told to stop, in seconds
    #[arg(long, env = "SHUTDOWN_SECS", value_name = "SECONDS", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) shutdown_secs: u64,

    /// What to log: a level, or levels by module, as in `info,async_nats=debug`
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info,async_nats=warn")]
    pub(crate) log: String,

    /// How to log
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    pub(crate) log_format: LogFormat,
}

impl CommonSettings {
    /// Name and password: from their settings, or else from the first URL that has them. (The client itself does not read
    /// them there.)
    pub(crate) fn login(&self) -> Option<(&str, &str)> {
        // A deployment's template may leave them empty.
        let user = self.nats_user.as_deref().filter(|user| !user.is_empty());
        let settings = user.zip(self.nats_password.as_ref().map(Secret::reveal));
        let urls = || self.nats_url.iter().find_map(|url| url.0.username().zip(url.0.password()));
        settings.or_else(urls)
    }

    pub(crate) fn shutdown(&self) -> Duration {
        Duration::from_secs(self.shutdown_secs)
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON elsewhere
    Auto,
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

/// Where one NATS server is. It may contain a password, so its `Debug` shows only host and port.
#[derive(Clone)]
pub(crate) struct NatsUrl(pub(crate) async_nats::ServerAddr);

impl FromStr for NatsUrl {
    type Err = std::io::Error;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        url.parse().map(Self)
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.host(), self.0.port())
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value that must not be seen: its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The value itself. Keep it out of logs.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<S: Args> CommandLine<S> {
    /// The command line's description, with the service's name and defaults in it.
    fn describe(info: ServiceInfo) -> clap::Command {
        Self::command()
            .name(info.name)
            .bin_name(info.name)
            .version(info.version)
            .about(info.description)
            .mut_arg("http_addr", |arg| arg.default_value(format!("0.0.0.0:{}", info.port)))
            .mut_arg("data_dir", |arg| arg.default_value(format!("data/{}", info.name)))
    }

    /// Reads the process's arguments and environment. Prints help, version or what is wrong and ends the process where
    /// that is what was asked for.
    pub(crate) fn read(info: ServiceInfo) -> Self {
        let matches = Self::describe(info).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: ServiceInfo = ServiceInfo { name: "toy", version: "1.2.3", description: "A toy", port: 8099 };

    fn parse(arguments: &[&str]) -> Result<CommonSettings, clap::Error> {
        let arguments = std::iter::once("toy").chain(arguments.iter().copied());
        let matches = CommandLine::<NoSettings>::describe(INFO).try_get_matches_from(arguments)?;
        Ok(CommandLine::<NoSettings>::from_arg_matches(&matches)?.common)
    }

    #[test]
    fn the_description_is_sound() {
        CommandLine::<NoSettings>::describe(INFO).debug_assert();
    }

    #[test]
    fn defaults_carry_the_services_port_and_name() {
        let settings = parse(&[]).unwrap();
        assert_eq!(settings.http_addr, "0.0.0.0:8099".parse().unwrap());
        assert_eq!(settings.data_dir, PathBuf::from("data/toy"));
    }

    #[test]
    fn every_flag_names_its_variable_and_its_default_in_the_help() {
        let description = CommandLine::<NoSettings>::describe(INFO);
        for arg in
            description.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
        {
            assert!(arg.get_env().is_some(), "{} has no environment variable", arg.get_id());
            assert!(arg.get_help().is_some(), "{} has no help", arg.get_id());
        }
        let help = description.clone().render_long_help().to_string();
        for shown in ["NATS_URL", "0.0.0.0:8099", "data/toy", "nats://127.0.0.1:4222", "healthcheck"] {
            assert!(help.contains(shown), "{shown} is not in\n{help}");
        }
    }

    #[test]
    fn a_cluster_is_a_list_of_urls() {
        let settings = parse(&["--nats-url", "nats://a:4222,nats://b:4222"]).unwrap();
        assert_eq!(settings.nats_url.len(), 2);
        assert!(parse(&["--nats-url", "http://a"]).is_err());
    }

    #[test]
    fn the_login_may_stand_in_the_url() {
        let in_url = ["--nats-url", "nats://a:4222,nats://someone:secret@b:4222"];
        assert_eq!(parse(&in_url).unwrap().login(), Some(("someone", "secret")));
        let both = [&in_url[..], &["--nats-user", "other", "--nats-password", "word"]].concat();
        assert_eq!(parse(&both).unwrap().login(), Some(("other", "word")));
        let empty = ["--nats-user", "", "--nats-password", ""];
        assert_eq!(parse(&empty).unwrap().login(), None);
    }

    #[test]
    fn a_password_is_never_printed() {
        let url = "nats://someone:hunter3@a:4222";
        let settings = parse(&["--nats-url", url, "--nats-user", "u", "--nats-password", "hunter2"]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter"), "{settings:?}");
        assert_eq!(settings.nats_password.unwrap().reveal(), "hunter2");
    }
}
