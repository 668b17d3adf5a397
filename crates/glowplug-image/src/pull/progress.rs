//! How far a pull is. Only the latest state is kept: a slow reader skips, and nothing queues.

use std::sync::Arc;

use tokio::sync::watch;

use crate::source::LayerDescriptor;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of the layers as they are stored, here or downloaded.
    pub bytes: u64,
    /// 0: not known yet.
    pub total_bytes: u64,
    /// Of `bytes`, what was here before.
    pub known_bytes: u64,
    pub layers: usize,
    pub total_layers: usize,
    pub is_done: bool,
}

/// Where a pull reports to. Cheap to clone; reporting never waits.
#[derive(Clone, Debug)]
pub struct ProgressSender(Arc<watch::Sender<Progress>>);

impl ProgressSender {
    pub fn channel() -> (Self, watch::Receiver<Progress>) {
        let (sender, receiver) = watch::channel(Progress::default());
        (Self(Arc::new(sender)), receiver)
    }

    /// For callers that show nothing.
    pub fn none() -> Self {
        Self::channel().0
    }

    pub(super) fn begin(&self, layers: &[LayerDescriptor]) {
        self.0.send_modify(|progress| {
            progress.total_bytes = layers.iter().map(|layer| layer.bytes).sum();
            progress.total_layers = layers.len();
        });
    }

    pub(super) fn layer_is_known(&self, layer: &LayerDescriptor) {
        self.0.send_modify(|progress| {
            progress.bytes += layer.bytes;
            progress.known_bytes += layer.bytes;
            progress.layers += 1;
        });
    }

    pub(super) fn received(&self, bytes: usize) {
        self.0.send_modify(|progress| progress.bytes += bytes as u64);
    }

    pub(super) fn layer_is_done(&self) {
        self.0.send_modify(|progress| progress.layers += 1);
    }

    pub(super) fn done(&self) {
        self.0.send_modify(|progress| progress.is_done = true);
    }
}
