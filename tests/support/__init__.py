"""What tests share: peers as oracles, real services, images by formula."""
