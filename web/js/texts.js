// What the pack says on the page, in the page's language where it knows it. Errors come from the server, in English.
import { app } from "./host.js";

/**
 * Words in {braces} are filled in; {n|one|more} is a word for the number n.
 * @type {Record<string, Record<string, string>>}
 */
const TEXTS = {
  en: {
    all_steps: "{steps} {steps|step|steps}",
    of_steps: " of {steps} {steps|step|steps}",
    settings: "shift {shift}, boundary {boundary}",
    settings_alone: "shift {shift}",
    wired: "but for the wired {names}",
    step: "step {step}",
    step_of_expert: "step {step}: {expert}",
    base: "base model",
    high: "high-noise expert",
    low: "low-noise expert",
    at_work: "{expert} at work",
    no_schedule: "no schedule: {error}",
    unfit: "{name} {value} cannot be made, {fitting} can",
    frames: "{frames} {frames|frame|frames}",
    seconds: "{frames} {frames|frame|frames} = {seconds} s at {fps} fps",
    missing: "{value} is not there",
    missing_release: "{value} is not there: get {url} as the folder models/wan/{folder}",
  },
  zh: {
    all_steps: "{steps} 步",
    of_steps: "，共 {steps} 步",
    settings: "shift {shift}，boundary {boundary}",
    settings_alone: "shift {shift}",
    wired: "连线的 {names} 除外",
    step: "第 {step} 步",
    step_of_expert: "第 {step} 步：{expert}",
    base: "基础模型",
    high: "高噪声专家",
    low: "低噪声专家",
    at_work: "{expert}工作中",
    no_schedule: "没有噪声表：{error}",
    unfit: "{name} 不能为 {value}，可以为 {fitting}",
    frames: "{frames} 帧",
    seconds: "{frames} 帧 = {seconds} 秒（{fps} fps）",
    missing: "找不到 {value}",
    missing_release: "找不到 {value}：请下载 {url}，放到文件夹 models/wan/{folder}",
  },
};

/**
 * A text of the page, by its name.
 * @param {string} name
 * @param {Record<string, string | number>} values
 */
export function say(name, values = {}) {
  const language = String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en");
  const texts = language.startsWith("zh") ? TEXTS.zh : TEXTS.en;
  return texts[name].replace(/\{(\w+)(?:\|(\w+)\|(\w+))?\}/g, (_, word, one, more) => (
    more ? (values[word] === 1 ? one : more) : String(values[word])
  ));
}
