//! Without an SMTP server: every mail is a file that any mail program opens.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::letter::Letter;
use crate::transport::{MailTransport, SendError, Sending};

/// What the directory is called in metrics and on pages. What keeps one mail from being written, keeps all.
const DIRECTORY: &str = "mail directory";

/// Writes each mail to `<directory>/<mail id>.eml`. Sending a mail again writes the same file again.
#[derive(Debug, Clone)]
pub struct EmlFiles {
    directory: PathBuf,
}

impl EmlFiles {
    /// Writes into `directory`, which is made if it is not there.
    pub fn new(directory: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("making the mail directory {}", directory.display()))?;
        Ok(Self { directory })
    }
}

impl MailTransport for EmlFiles {
    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a> {
        Box::pin(async move {
            let directory = self.directory.clone();
            let name = letter.mail_id().to_string();
            let content = letter.message().formatted();
            tokio::task::spawn_blocking(move || write(&directory, &name, &content))
                .await
                .context("writing the mail")
                .flatten()
                .map_err(|source| SendError::Unavailable { dependency: DIRECTORY, source })
        })
    }
}

/// A reader sees the whole mail or none, and a mail that was reported as written survives a power cut: it is written
/// aside, synced, renamed, and the directory is synced.
fn write(directory: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let aside = directory.join(format!(".{name}.{}.tmp", std::process::id()));
    let path = directory.join(format!("{name}.eml"));
    let written = (|| {
        let mut file = std::fs::File::create(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&aside, &path)?;
        std::fs::File::open(directory)?.sync_all()
    })();
    written.with_context(|| format!("writing {}", path.display()))
}
