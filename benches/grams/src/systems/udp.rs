//! Bare UDP: nothing is sent again, nothing is remembered.

use std::net::{SocketAddr, UdpSocket};

use super::{Client, Server, Setup};

pub struct Udp {
    socket: UdpSocket,
    to: Option<SocketAddr>,
    buffer: Vec<u8>,
}

impl Udp {
    pub fn server(setup: &Setup) -> Result<Udp, String> {
        let socket = UdpSocket::bind((setup.ip, 0)).map_err(|error| error.to_string())?;
        Ok(Udp {
            socket,
            to: None,
            buffer: vec![0; 65536],
        })
    }

    pub fn client(setup: &Setup, address: &str) -> Result<Udp, String> {
        let mut udp = Udp::server(setup)?;
        udp.to = Some(
            address
                .parse()
                .map_err(|_| format!("{address}: not an address"))?,
        );
        Ok(udp)
    }
}

impl Server for Udp {
    fn address(&self) -> String {
        self.socket.local_addr().expect("bound").to_string()
    }

    fn answer(&mut self) -> Result<(), String> {
        let received = self.socket.recv_from(&mut self.buffer);
        let (len, from) = received.map_err(|error| error.to_string())?;
        let sent = self.socket.send_to(&self.buffer[..len], from);
        sent.map(|_| ()).map_err(|error| error.to_string())
    }
}

impl Client for Udp {
    fn ask(&mut self, message: &[u8]) -> Result<(), String> {
        let to = self.to.expect("a client");
        self.socket
            .send_to(message, to)
            .map_err(|error| error.to_string())?;
        let received = self.socket.recv_from(&mut self.buffer);
        received.map(|_| ()).map_err(|error| error.to_string())
    }

    fn ask_several(&mut self, message: &[u8]) -> Result<usize, String> {
        let to = self.to.expect("a client");
        for _ in 0..8 {
            self.socket
                .send_to(message, to)
                .map_err(|error| error.to_string())?;
        }
        for _ in 0..8 {
            self.socket
                .recv_from(&mut self.buffer)
                .map_err(|error| error.to_string())?;
        }
        Ok(8)
    }
}
