"""CIFAR-100: 50,000 and 10,000 pictures of a hundred classes, in the two forms of CIFAR-10.

Krizhevsky 2009. Labels are the fine ones: a record of the binary files has the coarse label before
it, a pickle has it in a list of its own.
"""

from manifoldlab.data import base, cifar10
from manifoldlab.data.base import Found, Layout, Publication, Table
from manifoldlab.interfaces import Data

PUBLICATION = Publication("cifar100", cifar10.PUBLICATION.page)
CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
    orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
    rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
    trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905 - a hundred quotes
)
MD5 = {  # of the pickles; the binary files' are not published
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}
FORMAT = cifar10.Format(2, "fine_labels", len(CLASSES), MD5)


def cifar100(
    *, root: str = "", train: bool = True, device: str = "cpu", check: bool = True
) -> Data:
    """x (3, 32, 32); check=False reads other files of the same names, of any number of images."""
    return read(root, train, check).data(CLASSES, device)


def found(root: str, train: bool) -> Found:
    return read(root, train, True).found("train" if train else "test", len(CLASSES))


def read(root: str, train: bool, check: bool) -> Table:
    name = "train" if train else "test"
    layouts = [
        Layout(("cifar-100-binary", "cifar100/cifar-100-binary", "cifar100"), (f"{name}.bin",)),
        Layout(("cifar-100-python", "cifar100/cifar-100-python", "cifar100"), (name,)),
    ]
    return cifar10.table(base.locate(PUBLICATION, root, layouts), FORMAT, check)
