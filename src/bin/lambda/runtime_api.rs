//! The connections to Lambda's Runtime API, which the runtime's HTTP client opens and does not let out.
//!
//! The client does not set TCP_NODELAY on them, and sends the head of a streamed answer, its delimiter and its body as
//! small writes; each then waits for the acknowledgement of the one before, which is delayed by 40 ms.
//!
//! It also does not say how much of an answer waits to be read. Their buffers hold megabytes: an answer that Lambda
//! streams at 2 MB/s is written to them long before it is read.

#![allow(unsafe_code)]

use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddrV4;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

/// The option `TCP_INFO` of Linux.
const TCP_INFO: libc::c_int = 11;

/// Where `tcp_info` of Linux has `tcpi_notsent_bytes` and `tcpi_snd_wnd`, in words of 32 bits. The second is there since
/// Linux 5.4.
const NOT_SENT: usize = 36;
const WINDOW: usize = 57;

/// The connections of this process to one address.
pub(crate) struct Connections {
    peer: SocketAddrV4,
    open: Mutex<Vec<Connection>>,
}

struct Connection {
    fd: RawFd,
    /// The widest window that the other end has offered: how much it would take if it had read everything.
    widest: u32,
}

impl Connections {
    /// Connections to an address such as `127.0.0.1:9001`. `None` if it is not IPv4, as Lambda's always is.
    pub(crate) fn to(address: &str) -> Option<Self> {
        Some(Self { peer: address.parse().ok()?, open: Mutex::default() })
    }

    /// Finds those that are open now, and sets TCP_NODELAY on them.
    pub(crate) fn find(&self) {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if peer(fd) == Some(self.peer) {
                set_nodelay(fd);
                found.push(Connection { fd, widest: 0 });
            }
        }
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// How many bytes that were written to those that were found have not been read at the other end. Zero if the
    /// kernel does not say.
    pub(crate) fn unread(&self) -> u64 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter_mut().filter_map(Connection::unread).sum()
    }
}

impl Connection {
    /// What this end has not sent because the window is closed, and by how much the window has become smaller.
    fn unread(&mut self) -> Option<u64> {
        let mut info = [0_u32; WINDOW + 1];
        let mut length = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
        let all = length;
        // SAFETY: `info` is writable memory of `length` bytes, and the kernel writes no more than that, whatever the
        // descriptor is by now.
        let done = unsafe {
            libc::getsockopt(self.fd, libc::IPPROTO_TCP, TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
        };
        let (&not_sent, &window) = (info.get(NOT_SENT)?, info.get(WINDOW)?);
        if done != 0 || length < all {
            return None;
        }
        self.widest = self.widest.max(window);
        Some(u64::from(not_sent) + u64::from(self.widest - window))
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

fn set_nodelay(fd: RawFd) {
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
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::Connections;

    #[test]
    fn connections_to_the_address_and_no_others() {
        let [api, other] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let to_api = TcpStream::connect(api.local_addr().unwrap()).unwrap();
        let to_other = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        Connections::to(&api.local_addr().unwrap().to_string()).unwrap().find();
        assert!(to_api.nodelay().unwrap());
        assert!(!to_other.nodelay().unwrap());
        assert!(Connections::to("localhost:1").is_none());
    }

    /// Whether the bytes that wait are between these within ten seconds.
    fn comes_between(connections: &Connections, least: u64, most: u64) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if (least..=most).contains(&connections.unread()) {
                return true;
            }
            sleep(Duration::from_millis(5));
        }
        false
    }

    #[test]
    fn bytes_that_the_other_end_has_not_read_are_counted() {
        let api = TcpListener::bind("127.0.0.1:0").unwrap();
        let connections = Connections::to(&api.local_addr().unwrap().to_string()).unwrap();
        let mut writer = TcpStream::connect(api.local_addr().unwrap()).unwrap();
        let (mut reader, _) = api.accept().unwrap();
        writer.set_nonblocking(true).unwrap();
        assert_eq!(connections.unread(), 0);
        connections.find();
        assert_eq!(connections.unread(), 0);
        // As much as the buffers hold.
        let (chunk, mut written) = ([0; 16 * 1024], 0);
        while let Ok(bytes) = writer.write(&chunk) {
            written += bytes as u64;
            connections.unread();
        }
        assert!(written > 64 * 1024, "{written}");
        assert!(
            comes_between(&connections, written / 2, 2 * written),
            "{} of {written}",
            connections.unread()
        );
        reader.read_exact(&mut vec![0; usize::try_from(written).unwrap()]).unwrap();
        assert!(comes_between(&connections, 0, written / 8), "{} of {written}", connections.unread());
    }
}
