//! Mails as files.

use consumer_email::eml::EmlFiles;
use consumer_email::letter::{Letter, News};
use consumer_email::transport::{MailTransport, SendError};

use crate::{id, order, sender};

#[tokio::test]
async fn a_mail_is_one_whole_file_however_often_it_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let mails = directory.path().join("mails");
    let files = EmlFiles::new(&mails).unwrap();
    let letter = Letter::compose(
        &sender(),
        "a@example.org".parse().unwrap(),
        &id("m-1"),
        "<m-1@example.com>",
        &order("o-1"),
        News::Placed,
    )
    .unwrap();
    for _ in 0..2 {
        files.send(&letter).await.unwrap();
    }
    let names: Vec<_> = std::fs::read_dir(&mails).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["m-1.eml"]);
    assert_eq!(std::fs::read(mails.join("m-1.eml")).unwrap(), letter.message().formatted());
}

#[tokio::test]
async fn a_directory_that_takes_no_files_is_an_outage() {
    let directory = tempfile::tempdir().unwrap();
    let files = EmlFiles::new(directory.path().join("mails")).unwrap();
    std::fs::remove_dir(directory.path().join("mails")).unwrap();
    let letter = Letter::compose(
        &sender(),
        "a@example.org".parse().unwrap(),
        &id("m-1"),
        "<m-1@example.com>",
        &order("o-1"),
        News::Placed,
    )
    .unwrap();
    let failure = files.send(&letter).await.unwrap_err();
    let is_outage = matches!(failure, SendError::Unavailable { dependency: "mail directory", .. });
    assert!(is_outage, "{failure:?}");
}
