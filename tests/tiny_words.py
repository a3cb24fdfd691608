"""The words of the tiny ticket set, by language and class."""

from __future__ import annotations

TOPICS = {
    "en": {
        "logistics": "parcel courier delivery tracking shipped late address customs driver package",
        "product": "colour size battery screen material fits manual weight warranty model",
        "payment": "invoice card refund charged coupon account password login price bank",
    },
    "zh": {
        "logistics": "快 递 包 裹 物 流 到 货 送 单",
        "product": "颜 色 尺 码 电 池 屏 材 质 型",
        "payment": "发 票 退 款 扣 费 优 惠 账 卡",
    },
}
FILLER = {"en": "the my a is was it please when why not where i", "zh": "我 的 了 吗 请 问 不 什 么 是"}
