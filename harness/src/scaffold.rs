//! What the commands that write crates have in common: checked names, the next port, files that are written together, and
//! the lists that a new service is entered into.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use xtask::{cargo, run};

use crate::{Ports, Workspace};

/// The longest name of a crate, an aggregate or an event.
const MAX_NAME_LEN: usize = 32;

/// Words that name no module and no crate: Rust's keywords, and the crates that come with it.
const KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final \
    fn for gen if impl in let loop macro match mod move mut override priv pub ref return self static struct super trait \
    true try type typeof union unsafe unsized use virtual where while yield alloc core proc_macro std test";

/// Takes a name apart at its separator. Refuses one that is no name in Rust, on a subject or of a container.
pub(crate) fn words<'a>(name: &'a str, separator: char, what: &str) -> Result<Vec<&'a str>> {
    let words: Vec<&str> = name.split(separator).collect();
    let legal = |word: &&str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    ensure!(
        words.iter().all(legal) && name.len() <= MAX_NAME_LEN,
        "{name:?} is no name for {what}: up to {MAX_NAME_LEN} of a-z, 0-9 and {separator}, each word starting with a letter"
    );
    Ok(words)
}

/// Refuses a name that would hide something: a keyword, or one of `others`, which are separated by spaces.
pub(crate) fn ensure_free(name: &str, others: &str) -> Result<()> {
    let taken = KEYWORDS.split_whitespace().chain(others.split_whitespace()).any(|word| word == name);
    ensure!(!taken, "the name {name} means something else in Rust or in the shop; choose another");
    Ok(())
}

/// Returns the name of a type: `GiftCard` of `gift` and `card`.
pub(crate) fn camel_case(words: &[&str]) -> String {
    words.iter().map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

/// Returns an enumeration for a sentence: `order.placed, order.shipped and payment.processed`.
pub(crate) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A crate that is to become one of the services.
#[derive(Debug)]
pub(crate) struct NewMember {
    /// Its package, binary, durable, container and directory.
    pub(crate) package: String,
    /// The port that it listens on.
    pub(crate) port: u16,
}

/// The files that are to be written, by their paths from the root, with their texts.
pub(crate) type Files = BTreeMap<String, String>;

impl NewMember {
    /// Gives a package the next port. Refuses one that is there already.
    pub(crate) fn check(workspace: &Workspace, package: String) -> Result<Self> {
        ensure!(!workspace.root.join(&package).exists(), "there is a {package} already; choose another name");
        let port = workspace.services.last().map_or(Ports::SERVICES.start + 1, |last| last.port + 1);
        ensure!(Ports::SERVICES.contains(&port), "no port is left for it below {}", Ports::SERVICES.end);
        Ok(Self { package, port })
    }

    /// Adds to the files those that list the services, with this one in them.
    pub(crate) fn enter(&self, workspace: &Workspace, files: &mut Files) -> Result<()> {
        edit(workspace, files, "Cargo.toml", |manifest| self.add_to_workspace(manifest))?;
        edit(workspace, files, "docker-compose.yml", |compose| self.add_to_containers(compose))
    }

    fn add_to_workspace(&self, manifest: &str) -> Result<String> {
        let Self { package, port } = self;
        let manifest = after_last(manifest, "    \"consumer-", &format!("    \"{package}\",\n"))?;
        let section = "[workspace.metadata.services]\n";
        let start = manifest.find(section).with_context(|| format!("no {}", section.trim()))? + section.len();
        let (before, services) = manifest.split_at(start);
        let end = services.find("\n\n").map_or(services.len(), |end| end + 1);
        let (services, after) = services.split_at(end);
        Ok(format!("{before}{services}{package} = {port}\n{after}"))
    }

    fn add_to_containers(&self, compose: &str) -> Result<String> {
        let volumes = compose.find("\nvolumes:\n").context("no volumes at its end")?;
        let (services, volumes) = compose.split_at(volumes);
        let volumes = after_last(volumes, "  consumer-", &format!("  {}:\n", self.package))?;
        Ok(format!("{services}\n{}{volumes}", self.container()))
    }

    fn container(&self) -> String {
        let Self { package, port } = self;
        format!(
            r#"  {package}:
    <<: *service
    image: shop/{package}
    build: {{ context: ., args: {{ BIN: {package} }} }}
    environment: {{ NATS_URL: "nats://nats:4222" }}
    volumes: ["{package}:/data"]
    ports: ["127.0.0.1:{port}:{port}"]
"#
        )
    }
}

/// Adds a file of the workspace to the files, with its text changed.
pub(crate) fn edit(
    workspace: &Workspace,
    files: &mut Files,
    file: &str,
    change: impl FnOnce(&str) -> Result<String>,
) -> Result<()> {
    let text = fs::read_to_string(workspace.root.join(file)).with_context(|| format!("reading {file}"))?;
    let text = change(&text).with_context(|| format!("changing {file}"))?;
    files.insert(file.to_owned(), text);
    Ok(())
}

/// Puts `line` after the last line that starts with `start`.
pub(crate) fn after_last(text: &str, start: &str, line: &str) -> Result<String> {
    let missing = || format!("no line starts with {start:?}");
    let last = text.rfind(&format!("\n{start}")).with_context(missing)? + 1;
    let end = text[last..].find('\n').map_or(text.len(), |end| last + end + 1);
    Ok(format!("{}{line}{}", &text[..end], &text[end..]))
}

/// Writes the files, formats these packages and brings Cargo.lock up to date.
pub(crate) fn write(workspace: &Workspace, files: &Files, packages: &[&str]) -> Result<()> {
    for (file, text) in files {
        let path = workspace.root.join(file);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {file}"))?;
        say!("wrote {file}");
    }
    // The line width depends on the names, so rustfmt has the last word; and images are built with a locked Cargo.lock.
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    run(cargo().arg("fmt").args(packages).current_dir(&workspace.root))?;
    run(cargo().args(["update", "--workspace", "--offline", "--quiet"]).current_dir(&workspace.root))
}
