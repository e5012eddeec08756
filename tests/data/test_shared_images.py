"""Images of two splits that are the same files' bytes are found, by reading as little as tells them apart."""

import pytest

from dlv3p.data.fingerprints import BLOCK, describe_shared, shared_images


class Files:
    """A split of files with these contents, as far as it is looked into."""

    def __init__(self, folder, *contents: bytes, fingerprint: str = "") -> None:
        folder.mkdir()
        self.root, self.split, self.fingerprint, self.whole = folder, folder.name, fingerprint, []
        self.paths = [folder / f"{index}.png" for index in range(len(contents))]
        for path, content in zip(self.paths, contents, strict=True):
            path.write_bytes(content)

    def __len__(self) -> int:
        return len(self.paths)

    def image_path(self, index: int):
        return self.paths[index]

    def name(self, index: int) -> str:
        return self.paths[index].stem

    def image_bytes(self, index: int) -> bytes:
        self.whole.append(index)
        return self.paths[index].read_bytes()


def altered(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_copies_are_found_whatever_their_names_and_other_files_are_not_read_whole(tmp_path):
    content = bytes(range(256)) * (8 * BLOCK // 256)
    train = Files(tmp_path / "train", content, b"another size", altered(content, 0), altered(content, len(content) - 1))
    val = Files(tmp_path / "val", b"new", altered(content, len(content) // 2), content)
    assert shared_images(val, train) == {2}
    assert (val.whole, train.whole) == ([2], [0])
    assert "val: an image of 'val' is a copy of an image of 'train', 2; " in describe_shared(val, train)
    val.paths.pop()
    assert describe_shared(val, train) == ""


def test_files_that_differ_between_the_blocks_are_told_apart(tmp_path):
    content = bytes(range(256)) * (8 * BLOCK // 256)
    train, val = Files(tmp_path / "train", content), Files(tmp_path / "val", altered(content, 2 * BLOCK))
    assert shared_images(val, train) == set()
    assert (val.whole, train.whole) == ([0], [0])


@pytest.mark.parametrize("contents", [(b"",), (b"a" * 10,), (b"a" * (BLOCK + 1),)])
def test_small_and_empty_files_are_compared(tmp_path, contents):
    assert shared_images(Files(tmp_path / "val", *contents), Files(tmp_path / "train", *contents)) == {0}


def test_shards_are_not_looked_into_and_an_image_that_is_gone_is_left_to_its_reader(tmp_path):
    train, val = Files(tmp_path / "train", b"same"), Files(tmp_path / "val", b"same", fingerprint="shards")
    assert describe_shared(val, train) == ""
    assert val.whole == []
    val.fingerprint = ""
    train.paths[0].unlink()
    assert describe_shared(val, train) == ""
    with pytest.raises(FileNotFoundError):
        shared_images(val, train)
