//! Connections as clients have them.

use crate::error::LoadError;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(5);

/// A connection without Nagle's delay; `buffer` is what the kernel is asked to hold either way.
pub fn connect(address: SocketAddr, buffer: Option<u32>) -> Result<TcpStream, LoadError> {
    let fail = |error| LoadError::Connect(address, error);
    let stream = TcpStream::connect_timeout(&address, CONNECT).map_err(fail)?;
    stream.set_nodelay(true).map_err(fail)?;
    if let Some(bytes) = buffer {
        set_socket_recv_buffer_size(&stream, bytes as usize).map_err(|e| fail(e.into()))?;
        set_socket_send_buffer_size(&stream, bytes as usize).map_err(|e| fail(e.into()))?;
    }
    Ok(stream)
}
