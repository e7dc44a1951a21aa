//! What may change while cores run and is no topic's: decided by control, published like the topics.

use crate::closing::Closing;
use crate::conn::{AnswerState, SentKind};
use crate::core::Core;
use crate::slab::Key;
use ringmill_reactor::{Backend, Buf};
use ringmill_wire::RequestHeader;
use ringmill_wire::api_versions::{ApiVersionsAnswers, ApiVersionsRequest, Features};
use std::sync::Arc;

/// Immutable; a change is a new one, in a [`TopicDelta`](crate::TopicDelta).
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    pub features: Features,
}

impl Default for Live {
    /// Nothing was ever decided.
    fn default() -> Live {
        Live { features: ringmill_wire::features::shown(|_| None, 0) }
    }
}

impl<B: Backend> Core<B> {
    /// New settings that are no topic's.
    pub(crate) fn go_by(&mut self, live: Arc<Live>) {
        self.versions = ApiVersionsAnswers::new(&live.features);
        self.live = live;
    }

    pub(crate) fn handle_api_versions(&mut self, key: Key, frame: &[u8]) -> bool {
        self.metrics.other.requests += 1;
        let mut out = Vec::new();
        let Ok(header) = RequestHeader::parse(frame) else { return false };
        if let Err(error) = self.versions.answer(&header, frame, &mut out) {
            let (api, version) = (header.api_key, header.api_version);
            self.end(key, Some(Closing::Request { api, version, error }));
            return false;
        }
        if let Ok(request) = ApiVersionsRequest::parse(&header, frame)
            && header.api_version >= 3
            && request.is_valid(header.api_version)
        {
            let (name, version) = (request.client_software_name, request.client_software_version);
            self.metrics.client_software.note(name, version);
        }
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let slot = conn.reserve();
        self.answer(key, slot, AnswerState::Ready(vec![Buf::from_vec(out)], SentKind::Other));
        true
    }
}
