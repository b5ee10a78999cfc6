//! MQTT control packets.
