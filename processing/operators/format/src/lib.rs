//! Images of any common format into the frames that the snapshot operator takes.
//!
//! Behaviour: AIO.md §3, "format".

mod map {
    use image::imageops::FilterType;
    use image::{ImageReader, Limits};
    use std::io::Cursor;

    use measurement::{count_request, error, log_configuration, unexpected_input};
    use wasm_graph_sdk::macros::map_operator;

    const NAME: &str = "module-format/map";

    const FORMAT: &str = "rgb24";
    /// Width and height of a frame.
    const SIDE: u32 = 224;
    /// Bytes of a frame.
    const FRAME_BYTES: usize = (SIDE * SIDE * 3) as usize;
    /// What decoding one image may take of the memory that an operator has; enough for twelve megapixels.
    const DECODE_BYTES_MAX: u64 = 40 << 20;

    fn start(configuration: ModuleConfiguration) -> bool {
        log_configuration(NAME, &configuration);
        true
    }

    /// The frame of an image. What is no image but has a frame's length is taken for one.
    fn frame(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        match decode(&bytes) {
            Some(frame) => Ok(frame),
            None if bytes.len() == FRAME_BYTES => Ok(bytes),
            None => Err(error("Unexpected image format or size.")),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODE_BYTES_MAX);
        reader.limits(limits);
        // To RGB first: an alpha channel must not weigh in when pixels are mixed.
        let image = reader.decode().ok()?.into_rgb8();
        Some(image::imageops::resize(&image, SIDE, SIDE, FilterType::Lanczos3).into_raw())
    }

    fn is_frame(snapshot: &Snapshot) -> bool {
        (snapshot.width, snapshot.height) == (SIDE, SIDE) && snapshot.format.read() == FORMAT.as_bytes()
    }

    #[map_operator(init = "start")]
    fn to_frame(input: DataModel) -> Result<DataModel, Error> {
        count_request(NAME, None);
        let (timestamp, image) = match input {
            DataModel::Message(message) => (message.timestamp, message.payload),
            DataModel::Snapshot(snapshot) if is_frame(&snapshot) => return Ok(DataModel::Snapshot(snapshot)),
            DataModel::Snapshot(snapshot) => (snapshot.timestamp, snapshot.frame),
            DataModel::BufferOrBytes(_) => return Err(unexpected_input()),
        };
        Ok(DataModel::Snapshot(Snapshot {
            timestamp,
            format: FORMAT.to_owned().into(),
            width: SIDE,
            height: SIDE,
            frame: frame(image.into())?.into(),
        }))
    }
}
