"""Images, documents, texts and tables for messages.

::

    path, bytes, base64, data URL ──┐
    URL ── fetching.py ─────────────┤
                                    ├─ factory.py ── kinds.py: what is it, by its content
                                    │                image_headers.py: how large is the picture
                                    └─> inputs.py: ImageInput, DocumentInput, TextInput,
                                        TabularInput ── to_part() ──> a message

A file is what its content says, not what its name says.  Nothing is decoded: a picture's size is
read from its header, and only `ImageInput.fit` opens it, in a thread and below a pixel limit.
"""
