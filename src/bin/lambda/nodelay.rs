//! Sets TCP_NODELAY on the connections to Lambda's Runtime API.
//!
//! The runtime's HTTP client does not, and sends the head of a streamed answer, its delimiter and its body as
//! small writes; each then waits for the acknowledgement of the one before, which is delayed by 40 ms.

#![allow(unsafe_code)]

use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddrV4;
use std::os::fd::RawFd;

/// The connections of this process to one address.
pub(crate) struct Connections {
    peer: SocketAddrV4,
}

impl Connections {
    /// Connections to an address such as `127.0.0.1:9001`. `None` if it is not IPv4, as Lambda's always is.
    pub(crate) fn to(address: &str) -> Option<Self> {
        Some(Self { peer: address.parse().ok()? })
    }

    /// Sets TCP_NODELAY on those that are open now.
    pub(crate) fn set_nodelay(&self) {
        let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
        for entry in open.flatten() {
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if peer(fd) == Some(self.peer) {
                set(fd);
            }
        }
    }
}

/// The IPv4 address at the other end, if the descriptor is a connection that has one.
fn peer(fd: RawFd) -> Option<SocketAddrV4> {
    let mut address = MaybeUninit::<libc::sockaddr_in>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).ok()?;
    // SAFETY: `address` is writable memory of `length` bytes, and the kernel writes no more than that. A
    // descriptor that is closed, or none of a socket, makes the call fail and nothing else.
    let done = unsafe { libc::getpeername(fd, address.as_mut_ptr().cast(), &raw mut length) };
    // SAFETY: every bit pattern is a `sockaddr_in`, and all of it was initialised with zeros.
    let address = unsafe { address.assume_init() };
    let is_ipv4 = done == 0 && i32::from(address.sin_family) == libc::AF_INET;
    let ip = u32::from_be(address.sin_addr.s_addr);
    is_ipv4.then(|| SocketAddrV4::new(ip.into(), u16::from_be(address.sin_port)))
}

fn set(fd: RawFd) {
    let on: libc::c_int = 1;
    let Ok(length) = libc::socklen_t::try_from(size_of::<libc::c_int>()) else { return };
    // SAFETY: the option's value is an integer that lives during the call. Setting it on a descriptor that has
    // been closed since fails; on one that has been opened since, to whatever, it changes no data.
    let done =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), length) };
    if done != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "TCP_NODELAY cannot be set");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::Connections;

    #[test]
    fn connections_to_the_address_and_no_others() {
        let [api, other] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let to_api = TcpStream::connect(api.local_addr().unwrap()).unwrap();
        let to_other = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        Connections::to(&api.local_addr().unwrap().to_string()).unwrap().set_nodelay();
        assert!(to_api.nodelay().unwrap());
        assert!(!to_other.nodelay().unwrap());
        assert!(Connections::to("localhost:1").is_none());
    }
}
