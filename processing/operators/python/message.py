"""What the operators have in common."""


def payload(types, message) -> bytes:
    """The payload of a message. Another kind of data is a mistake in the graph, and ends the instance."""
    if not isinstance(message, types.DataModel_Message):
        raise ValueError("only messages here")
    match message.value.payload:
        case types.BufferOrBytes_Buffer(value=buffer):
            return buffer.read()
        case types.BufferOrBytes_Bytes(value=bytes_):
            return bytes_
