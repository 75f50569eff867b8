//! The flags of `passlane run`, and the paths that every verb shares.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint, parser::ValueSource,
};

use super::{
    FastPathMode, Settings, Source,
    fields::{self, Field, Role, Shape},
    tree::Value,
};
use crate::{model::Scheduler, plan::interfaces::Selection};

/// Where state and pins are.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub struct Paths {
    /// Directory for the ledger, the lock and the status; on a file system that a reboot empties
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/passlane")]
    pub state_dir: PathBuf,
    /// Directory for pinned maps and links, on a bpffs
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf/passlane")]
    pub bpffs: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { state_dir: "/run/passlane".into(), bpffs: "/sys/fs/bpf/passlane".into() }
    }
}

/// Where Services come from, for the agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SourceArgument {
    /// A manifest file, or a directory of them.
    File(PathBuf),
}

/// The flags of `passlane run`. [`Settings`] is what they mean together with the file; the fields
/// after `settings` are copies from there, see [`RunFlags::adopt`].
#[derive(Args, Clone, Debug)]
pub struct RunFlags {
    /// KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), or a ConfigMap that has one as
    /// config.conf; may have a section passlane. Flags win over its fields
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become help text")]
    pub given: GivenFlags,
    /// What file and flags mean together.
    #[arg(skip)]
    pub settings: Settings,
    /// Where Services come from.
    #[arg(skip = SourceArgument::File(PathBuf::new()))]
    pub source: SourceArgument,
    /// The default scheduler.
    #[arg(skip)]
    pub scheduler: Scheduler,
    /// Fast path for established flows.
    #[arg(skip = FastPathMode::Auto)]
    pub fast_path: FastPathMode,
    /// Interfaces of the fast path.
    #[arg(skip)]
    pub interfaces: Selection,
    /// Device that carries the VIPs.
    #[arg(skip)]
    pub dummy_device: String,
    /// Entries of the flow map.
    #[arg(skip)]
    pub flow_entries: u32,
    /// See [`Settings::soft_lease`].
    #[arg(skip)]
    pub soft_lease: Duration,
    /// See [`Settings::hard_lease`].
    #[arg(skip)]
    pub hard_lease: Duration,
    /// See [`Settings::sync_period`].
    #[arg(skip)]
    pub sync_period: Duration,
    /// Log what the datapath learns.
    #[arg(skip)]
    pub log_datapath: bool,
    /// Where state and pins are.
    #[arg(skip)]
    pub paths: Paths,
}

/// No flags: what the file says, or the defaults.
impl Default for RunFlags {
    fn default() -> Self {
        let mut flags = Self {
            config: None,
            given: GivenFlags::default(),
            settings: Settings::default(),
            source: SourceArgument::File(PathBuf::new()),
            scheduler: Scheduler::default(),
            fast_path: FastPathMode::Auto,
            interfaces: Selection::Auto,
            dummy_device: String::new(),
            flow_entries: 0,
            soft_lease: Duration::ZERO,
            hard_lease: Duration::ZERO,
            sync_period: Duration::ZERO,
            log_datapath: false,
            paths: Paths::default(),
        };
        flags.adopt(&Settings::default());
        flags
    }
}

impl RunFlags {
    /// Takes the settings over into the fields that the agent reads.
    pub fn adopt(&mut self, settings: &Settings) {
        if let Source::File(path) = &settings.source {
            self.source = SourceArgument::File(path.clone());
        }
        self.settings = settings.clone();
        self.scheduler = settings.scheduler.0;
        self.fast_path = settings.fast_path;
        self.interfaces = settings.interfaces.clone();
        self.dummy_device.clone_from(&settings.dummy_device);
        self.flow_entries = settings.flow_entries;
        self.soft_lease = settings.soft_lease;
        self.hard_lease = settings.hard_lease;
        self.sync_period = settings.sync_period;
        self.log_datapath = settings.log_datapath;
        self.paths = settings.paths.clone();
    }
}

/// The flags that were given, as they were written: those of [`fields`], ours and kube-proxy's.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GivenFlags {
    texts: BTreeMap<&'static str, String>,
}

impl GivenFlags {
    /// Returns the text of a flag.
    pub(super) fn get(&self, flag: &str) -> Option<&str> {
        self.texts.get(flag).map(String::as_str)
    }
}

fn with_flags() -> impl Iterator<Item = &'static Field> {
    fields::all().filter(|field| !field.flag.is_empty())
}

impl Args for GivenFlags {
    fn augment_args(command: Command) -> Command {
        with_flags().fold(command, |command, field| command.arg(argument(field)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for GivenFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for field in with_flags() {
            if matches.value_source(field.flag) == Some(ValueSource::CommandLine) {
                let texts = matches.get_many::<String>(field.flag).into_iter().flatten();
                let texts: Vec<&str> = texts.map(String::as_str).collect();
                self.texts.insert(field.flag, texts.join(","));
            }
        }
        Ok(())
    }
}

/// The flags of kube-proxy that had another name here first.
const ALIASES: [(&str, &str); 2] =
    [("ipvs-scheduler", "scheduler"), ("ipvs-sync-period", "sync-period")];

fn argument(field: &'static Field) -> Arg {
    let mut argument = Arg::new(field.flag)
        .long(field.flag)
        .value_name(field.shape.placeholder())
        .help(field.help)
        .allow_hyphen_values(true);
    if field.flag == "v" {
        argument = argument.short('v');
    }
    if let Some((_, alias)) = ALIASES.iter().find(|(flag, _)| *flag == field.flag) {
        argument = argument.visible_alias(*alias);
    }
    argument = match field.shape {
        // As Go's flags: the value of a boolean one needs the equals sign.
        Shape::Flag => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => argument,
    };
    argument = match field.shape {
        // As Go's flags: lists add up, of anything else the last one counts.
        Shape::List => argument.action(ArgAction::Append),
        _ => argument.action(ArgAction::Set).overrides_with(field.flag),
    };
    match field.role {
        Role::Used { .. } if field.path.starts_with("passlane.") => argument,
        Role::Used { .. } => argument.help_heading("Options of kube-proxy"),
        _ => argument.help_heading("Not used").hide_short_help(true),
    }
}

impl Shape {
    fn placeholder(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Time => "TIME",
            Self::Number => "N",
            Self::Flag => "BOOL",
            Self::List => "LIST",
            Self::Map => "KEY=VALUE,...",
        }
    }

    /// Turns the text of a flag into a value as a file would have it. What does not fit stays
    /// text, and the field says what belongs there.
    pub(super) fn value(self, text: &str) -> Value {
        let as_text = || Value::Text(text.to_owned());
        match self {
            Self::Text | Self::Time | Self::Map => as_text(),
            Self::Flag => match text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Value::Flag(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Value::Flag(false),
                _ => as_text(),
            },
            Self::Number => match (text.parse(), text.parse()) {
                (Ok(number), _) => Value::Whole(number),
                (_, Ok(number)) => Value::Fraction(number),
                _ => as_text(),
            },
            Self::List if text.is_empty() => Value::List(Vec::new()),
            Self::List => Value::texts(text.split(',').map(str::trim)),
        }
    }
}
