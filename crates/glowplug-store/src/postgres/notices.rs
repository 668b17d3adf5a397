//! What nodes tell each other over the server's `NOTIFY`: small texts, sent when a transaction commits.
//!
//! ```text
//! SENDER completed ID ID ...    these requests are complete
//! SENDER cancel OWNER ID        whoever owns ID shall cancel it
//! SENDER orphaned               there may be requests to take over
//! SENDER settings               keys or settings of apps were changed
//! ```

use std::sync::{Mutex, PoisonError};

use glowplug_core::RequestId;
use uuid::Uuid;

use super::columns::{Db, run};
use super::failure::{Failure, Fault, Kind};
use crate::records::Change;

/// Ids in one notice. The server takes 8,000 bytes at most, and an id has 32 digits.
const IDS_PER_NOTICE_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Completed(RequestId),
    Cancel { owner: u32, id: RequestId },
    Orphaned,
    Settings,
}

/// Gathered while a transaction is made.
#[derive(Default)]
pub(super) struct Notices(Mutex<Vec<Notice>>);

impl Notices {
    pub(super) fn add(&self, notice: Notice) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }
}

/// This store among all that use the schema.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) node: Uuid,
    /// The name of the schema is that of the channel.
    pub(super) channel: String,
}

impl Sender {
    pub(super) async fn send(&self, db: &Db, notices: Notices) -> Result<(), Fault> {
        let notices = notices.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if notices.is_empty() {
            return Ok(());
        }
        let texts = self.texts(&notices);
        let sql = "SELECT pg_notify($1, text) FROM unnest($2::text[]) AS text";
        match run(db, sql, &[&self.channel, &texts]).await {
            Ok(_) => Ok(()),
            Err(Failure::Fault(fault)) => Err(fault),
            Err(Failure::Refused(error)) => Err(Fault::new(Kind::Statement, error.to_string())),
        }
    }

    fn texts(&self, notices: &[Notice]) -> Vec<String> {
        let node = self.node.simple();
        let mut completed = Vec::new();
        let mut texts = Vec::new();
        for notice in notices {
            match notice {
                Notice::Completed(id) => completed.push(format!("{:x}", id.0)),
                other => texts.push(self.text(*other)),
            }
        }
        let chunks = completed.chunks(IDS_PER_NOTICE_MAX);
        texts.extend(chunks.map(|ids| format!("{node} completed {}", ids.join(" "))));
        texts
    }

    pub(super) fn text(&self, notice: Notice) -> String {
        let node = self.node.simple();
        match notice {
            Notice::Completed(id) => format!("{node} completed {:x}", id.0),
            Notice::Cancel { owner, id } => format!("{node} cancel {owner} {:x}", id.0),
            Notice::Orphaned => format!("{node} orphaned"),
            Notice::Settings => format!("{node} settings"),
        }
    }

    /// What a notice means to the node with this boot. What cannot be read is of a newer version.
    pub(super) fn read(&self, text: &str, boot: u32) -> Vec<Change> {
        let mut words = text.split(' ');
        let is_own = words.next().and_then(|word| word.parse().ok()) == Some(self.node);
        let id = |word| u128::from_str_radix(word, 16).ok().map(RequestId);
        match words.next() {
            // The node that completes a request knows it.
            Some("completed") if !is_own => words.filter_map(id).map(Change::Completed).collect(),
            Some("cancel") => {
                let owner = words.next().and_then(|word| word.parse().ok());
                let asked = words.next().and_then(id).filter(|_| owner == Some(boot));
                asked.map(Change::CancelAsked).into_iter().collect()
            }
            Some("orphaned") if !is_own => vec![Change::Orphaned],
            // What a node changes is in force there already.
            Some("settings") if !is_own => vec![Change::Settings],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_read_as_they_were_meant() {
        let sender = |number| Sender { node: Uuid::from_u128(number), channel: "c".to_owned() };
        let (here, there) = (sender(1), sender(2));
        let id = RequestId(0xabc);
        let cases = [
            (Notice::Completed(id), &here, vec![]),
            (Notice::Completed(id), &there, vec![Change::Completed(id)]),
            (Notice::Cancel { owner: 7, id }, &here, vec![Change::CancelAsked(id)]),
            (Notice::Cancel { owner: 7, id }, &there, vec![Change::CancelAsked(id)]),
            (Notice::Cancel { owner: 8, id }, &there, vec![]),
            (Notice::Orphaned, &here, vec![]),
            (Notice::Orphaned, &there, vec![Change::Orphaned]),
            (Notice::Settings, &here, vec![]),
            (Notice::Settings, &there, vec![Change::Settings]),
        ];
        for (notice, from, expected) in cases {
            let texts = from.texts(&[notice]);
            assert_eq!(texts.len(), 1);
            assert_eq!(here.read(&texts[0], 7), expected, "{notice:?}");
        }
        assert_eq!(here.read("", 7), []);
        assert_eq!(here.read("nobody completed x", 7), []);
    }

    #[test]
    fn no_notice_is_longer_than_the_server_takes() {
        let sender = Sender { node: Uuid::from_u128(u128::MAX), channel: "c".to_owned() };
        let notices: Vec<_> =
            (0..500).map(|n| Notice::Completed(RequestId(u128::MAX - n))).collect();
        let texts = sender.texts(&notices);
        assert!(texts.iter().all(|text| text.len() < 8_000));
        let other = Sender { node: Uuid::from_u128(0), ..sender };
        let read: usize = texts.iter().map(|text| other.read(text, 0).len()).sum();
        assert_eq!(read, 500);
    }
}
