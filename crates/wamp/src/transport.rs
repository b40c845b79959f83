//! WebSocket framing over TCP and TLS.
