//! What may change while cores run and is no topic's: decided by control, published like the topics.

use crate::closing::Closing;
use crate::conn::AnswerState;
use crate::core::Core;
use crate::metrics::ApiKind;
use crate::served::Served;
use crate::slab::Key;
use ringmill_reactor::{Backend, Buf};
use ringmill_wire::RequestHeader;
use ringmill_wire::api_versions::{ApiVersionsAnswers, ApiVersionsRequest, Features};
use std::sync::Arc;

/// Immutable; a change is a new one, in a [`TopicDelta`](crate::TopicDelta).
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    pub features: Features,
    /// Of this core; counts where it is less than what the core may have anyway.
    pub connections_max: Option<usize>,
    /// `None` here and below: what was set at the start.
    pub producer_expiration_ms: Option<i64>,
    /// 0: none is slow.
    pub slow_request_ms: Option<u64>,
    /// Somebody has a quota for produce, fetch, time, or what is created and deleted.
    pub quotas: bool,
    /// Some address has one for how often it may connect.
    pub address_quotas: bool,
}

impl Default for Live {
    /// Nothing was ever decided.
    fn default() -> Live {
        Live {
            features: ringmill_wire::features::shown(|_| None, 0),
            connections_max: None,
            producer_expiration_ms: None,
            slow_request_ms: None,
            quotas: false,
            address_quotas: false,
        }
    }
}

impl<B: Backend> Core<B> {
    pub(crate) fn connections_max(&self) -> usize {
        self.live
            .connections_max
            .map_or(self.settings.connections_max, |most| most.min(self.settings.connections_max))
    }

    /// A request that took longer is logged.
    pub(crate) fn slow_request_us(&self) -> u64 {
        match self.live.slow_request_ms {
            Some(0) => u64::MAX,
            Some(ms) => ms.saturating_mul(1000),
            None => self.settings.slow_request_ms.saturating_mul(1000),
        }
    }

    /// New settings that are no topic's.
    pub(crate) fn go_by(&mut self, live: Arc<Live>) {
        self.versions = ApiVersionsAnswers::new(&live.features);
        self.log.set_producer_expiration(live.producer_expiration_ms);
        self.limits.forget();
        self.addresses.forget();
        self.live = live;
    }

    pub(crate) fn handle_api_versions(&mut self, key: Key, frame: &[u8]) -> bool {
        let mut out = Vec::new();
        let Ok(header) = RequestHeader::parse(frame) else { return false };
        if let Err(error) = self.versions.answer(&header, frame, &mut out) {
            let (api, version) = (header.api_key, header.api_version);
            return self.refuse(key, ApiKind::Other, Closing::Request { api, version, error });
        }
        let request = ApiVersionsRequest::parse(&header, frame);
        let request = request.ok().filter(|request| request.is_valid(header.api_version));
        self.metrics.other.answered(0, request.is_none());
        if let Some(request) = request
            && header.api_version >= 3
        {
            let (name, version) = (request.client_software_name, request.client_software_version);
            self.metrics.client_software.note(name, version);
            if let Some(conn) = self.conns.get_mut(key) {
                conn.client.runs(name, version);
            }
        }
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let slot = conn.reserve();
        let served = Served::at_once(header.api_key, conn.received_us);
        self.answer(key, slot, AnswerState::Ready(vec![Buf::from_vec(out)], served));
        true
    }
}
