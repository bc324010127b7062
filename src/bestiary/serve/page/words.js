// What the page says, in English and Chinese. {name} stands for a value.

const WORDS = {
  skip: ["Skip to the conversation", "跳到对话"],
  conversation: ["Conversation", "对话"],
  conversations: ["Conversations", "对话列表"],
  settings: ["Settings", "设置"],
  prompt: ["Prompt", "提示词"],
  promptTitle: ["What the model sees", "模型看到的内容"],
  card: ["Model card", "模型卡片"],
  close: ["Close", "关闭"],
  dark: ["Dark", "深色"],
  light: ["Light", "浅色"],
  otherLanguage: ["中文", "English"],
  toChinese: ["中文：换成中文", "English: switch to English"],
  toDark: ["Dark: switch to dark colours", "深色：换成深色"],
  toLight: ["Light: switch to light colours", "浅色：换成浅色"],

  newOne: ["New conversation", "新对话"],
  untitled: ["New conversation", "新对话"],
  rename: ["Rename", "改名"],
  renameOf: ["Rename {title}", "改名：{title}"],
  remove: ["Delete", "删除"],
  removeOf: ["Delete {title}", "删除：{title}"],
  reallyRemove: ["Really delete?", "确定删除？"],
  title: ["Title", "标题"],
  exportAll: ["Export all", "全部导出"],
  exportOf: ["Export {title}", "导出：{title}"],
  export: ["Export", "导出"],
  import: ["Import", "导入"],
  importFile: ["Import conversations: a JSONL file", "导入对话：JSONL 文件"],
  kept: ["Kept in this browser only.", "只保存在本浏览器中。"],
  keptNot: ["This browser keeps nothing: conversations last until the page is closed.", "本浏览器不保存数据：关闭页面后对话即消失。"],
  imported: ["Imported: {n}.", "已导入 {n} 个对话。"],
  refused: ["Refused: {n}.", "拒绝了 {n} 行。"],
  line: ["Line {n}: {why}", "第 {n} 行：{why}"],
  andMore: ["and {n} more", "另有 {n} 行"],
  fileTooBig: ["The file has more than {n} MiB; that is the most.", "文件超过 {n} MiB 的上限。"],
  fileEmpty: ["There is no line in this file.", "文件中没有内容。"],
  notUtf8: ["This file is not text in UTF-8.", "文件不是 UTF-8 文本。"],
  notJson: ["it is not JSON", "不是 JSON"],
  notObject: ["it is not an object", "不是对象"],
  unknownField: ["{field} is no field of a conversation; messages is the only one", "{field} 不是对话的字段，只能有 messages"],
  noMessages: ["messages should be a list of 1 to {n} messages", "messages 应是 1 到 {n} 条消息的列表"],
  badMessage: ["message {i} should have role and content and nothing else", "第 {i} 条消息应只有 role 和 content"],
  badRole: ["message {i} has role {role}; system (first only), user and assistant are read", "第 {i} 条消息的 role 是 {role}；可用 system（仅第一条）、user 和 assistant"],
  badContent: ["the content of message {i} should be text of at most {n} characters", "第 {i} 条消息的 content 应是不超过 {n} 个字符的文本"],
  onlySystem: ["there is only a system message", "只有系统消息"],
  lineTooLong: ["it has more than {n} characters", "超过 {n} 个字符"],
  tooManyLines: ["no more than {n} conversations are read at once", "一次最多读入 {n} 个对话"],

  you: ["You", "你"],
  system: ["System", "系统"],
  model: ["Model", "模型"],
  text: ["Text", "文本"],
  turn: ["{who}, turn {n}", "{who}，第 {n} 轮"],
  copy: ["Copy", "复制"],
  copied: ["Copied", "已复制"],
  copyFailed: ["Not copied", "复制失败"],
  copyCode: ["Copy code", "复制代码"],
  edit: ["Edit", "编辑"],
  editYours: ["Your turn; sending it starts a branch", "你的话；发送后产生新分支"],
  editTheirs: ["The answer; keeping it starts a branch", "回答；保存后产生新分支"],
  again: ["Regenerate", "重新生成"],
  goOn: ["Continue", "继续"],
  keep: ["Keep", "保存"],
  cancel: ["Cancel", "取消"],
  earlier: ["Previous version", "上一个版本"],
  later: ["Next version", "下一个版本"],
  version: ["Version {i} of {n}", "第 {i} 个版本，共 {n} 个"],
  probabilities: ["Probabilities", "概率"],
  tokensBy: ["Tokens by probability. Arrow keys go from one to the next.", "按概率显示的词元。用方向键逐个查看。"],
  likely: ["likely", "可能"],
  unlikely: ["unlikely", "不太可能"],
  perplexity: ["Perplexity {n}", "困惑度 {n}"],
  perplexitySays: ["exp of the mean negative log-probability of the answer's tokens", "回答中词元负对数概率均值的指数"],
  otherTokens: ["others", "其他"],
  joined: ["{n} tokens make one character", "{n} 个词元组成一个字符"],
  tokensSay: ["{n} tokens", "{n} 个词元"],
  tokenSay: ["1 token", "1 个词元"],
  perSecond: ["{n}/s", "每秒 {n} 个"],
  first: ["first after {n} s", "首个 {n} 秒"],
  statsSay: [
    "Tokens of the answer; tokens per second once the first was there; time to the first token",
    "回答的词元数；首个词元之后的每秒词元数；首个词元的时间",
  ],
  cut: ["Cut at the limit of tokens.", "到达词元上限而截断。"],
  stopped: ["Stopped.", "已停止。"],
  tooManyTurns: ["A conversation has at most {n} turns. Begin a new one.", "一个对话最多 {n} 轮，请开始新对话。"],
  failed: ["Broke off.", "回答中断。"],
  imageAt: ["image: {text}", "图片：{text}"],
  code: ["Code", "代码"],
  tableOf: ["Table", "表格"],

  say: ["Message", "消息"],
  sayText: ["Text to continue", "要续写的文本"],
  sayHint: ["Write a message…", "输入消息…"],
  sayTextHint: ["Write the beginning of a text…", "写下文本的开头…"],
  keysHint: ["Enter sends · Shift+Enter new line · Esc stops", "Enter 发送 · Shift+Enter 换行 · Esc 停止"],
  send: ["Send", "发送"],
  stop: ["Stop", "停止"],
  toEnd: ["To the end", "到末尾"],
  contextUsed: ["{used} of {all} tokens", "{used} / {all} 词元"],
  answering: ["Answering.", "正在回答。"],
  answered: ["The answer is complete.", "回答完毕。"],

  adapters: ["Model or adapter", "模型或适配器"],
  baseModel: ["{id} (no adapter)", "{id}（无适配器）"],
  systemPrompt: ["System prompt", "系统提示词"],
  systemHint: ["For this conversation. Empty: the model's own.", "只用于本对话。留空则用模型默认值。"],
  sampling: ["Sampling", "采样"],
  samplingHint: ["Empty: the server's own.", "留空则用服务器默认值。"],
  temperature: ["0: always the likeliest token", "0：总取最可能的词元"],
  top_p: ["keeps the likeliest tokens up to this share", "只留累计概率不超过此值的词元"],
  top_k: ["keeps so many tokens; 0: all", "只留这么多个词元；0：全部"],
  min_p: ["drops tokens below this share of the likeliest", "去掉低于最高概率此比例的词元"],
  max_tokens: ["longest answer, in tokens", "回答最多的词元数"],
  seed: ["same seed, same answer", "种子相同则回答相同"],
  stopTexts: ["texts that end the answer, one a line", "遇到即结束的文本，每行一个"],
  toDefaults: ["Reset sampling", "恢复默认采样"],
  display: ["Display", "显示"],
  markdown: ["Render Markdown", "显示 Markdown 格式"],
  logprobs: ["Ask for probabilities of tokens", "请求词元的概率"],
  logprobsHint: ["They stay with the answer; a button below it shows them.", "随回答保存，点回答下方的按钮查看。"],
  wholeFrom: ["A whole number from {low} to {high}.", "应为 {low} 到 {high} 的整数。"],
  realFrom: ["A number from {low} to {high}.", "应为 {low} 到 {high} 的数。"],
  stopsAre: ["At most {n} texts of 1 to {most} characters.", "最多 {n} 个，每个 1 到 {most} 个字符。"],
  settingWrong: ["Settings hold a value that is out of its bounds: {name}.", "设置中有超出范围的值：{name}。"],

  apiKey: ["API key", "API 密钥"],
  keyNeeded: ["This server asks for a key.", "此服务器需要密钥。"],
  keyWrong: ["The server does not know this key.", "服务器不认识这个密钥。"],
  keyKept: ["Kept until this tab is closed, and sent to this server only.", "只保留到关闭此标签页，也只发给此服务器。"],
  keyPlain: ["A key has printable ASCII characters only.", "密钥只能含可打印的 ASCII 字符。"],
  useKey: ["Use this key", "使用此密钥"],
  forgetKey: ["Forget the key", "忘记密钥"],

  refresh: ["Refresh", "刷新"],
  showIds: ["Show token ids", "显示词元编号"],
  tokensOf: ["{n} of {all} tokens of context", "{n} 个词元，上下文共 {all} 个"],
  templateIs: ["Template: {name}", "模板：{name}"],
  noTemplate: ["No template: the text is continued as it is.", "无模板：直接续写文本。"],
  controlHint: ["Marked: control tokens, which no text can spell.", "加框的是控制词元，普通文本拼不出来。"],
  nothingYet: ["Nothing has been said yet.", "还没有内容。"],
  longPrompt: ["The first {n} tokens are shown.", "只显示前 {n} 个词元。"],

  organisation: ["Organisation", "机构"],
  date: ["Date", "日期"],
  kind: ["Class", "类型"],
  languages: ["Languages", "语言"],
  licence: ["Licence", "许可证"],
  commercial: ["Commercial use", "商用"],
  yes: ["yes", "可以"],
  conditions: ["on conditions", "有条件"],
  no: ["no", "不可以"],
  unstated: ["unstated", "未说明"],
  claim: ["Known for", "因何闻名"],
  context: ["Context", "上下文"],
  template: ["Template", "模板"],
  none: ["none", "无"],
  tokenizer: ["Tokenizer", "分词器"],
  training: ["Training", "训练"],
  features: ["Features", "特点"],
  checkpoint: ["Checkpoints", "权重"],
  links: ["Links", "链接"],
  loadedAdapters: ["Adapters", "适配器"],
  tokens: ["{n} tokens", "{n} 个词元"],
  notKnown: ["The roster has no entry for this model.", "名录中没有这个模型。"],

  completes: [
    "This model has no chat template: it continues a text.",
    "此模型没有对话模板：它续写文本。",
  ],
  onlyEmbeds: [
    "This model does not write: it turns texts into vectors. Ask it at /v1/embeddings.",
    "此模型不生成文本，只把文本变成向量。请用 /v1/embeddings。",
  ],
  loading: ["Asking the server…", "正在询问服务器…"],
  retry: ["Try again", "重试"],
  retryIn: ["Try again in {n} s", "{n} 秒后重试"],
  network: [
    "The server does not answer. It may have been stopped; start it again with bestiary serve.",
    "服务器没有响应，可能已停止。请再次运行 bestiary serve。",
  ],
  broken: ["The answer broke off: the server ended the connection.", "回答中断：服务器断开了连接。"],
  busy: ["The server is busy. It says to ask again in {n} s.", "服务器繁忙，请在 {n} 秒后重试。"],
  unavailable: ["The model is not ready: {said}", "模型尚未就绪：{said}"],
  said: ["The server says: {said}", "服务器的回复：{said}"],
  strange: ["The server's answer is not what its API says: {said}", "服务器的回复不符合 API：{said}"],
};

const heard = new Set();

export function language() {
  return document.documentElement.lang === "zh" ? "zh" : "en";
}

/** A text in the reader's language, with values in place of {names}. */
export function say(key, values = {}) {
  const text = WORDS[key][language() === "zh" ? 1 : 0];
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** A number as the reader writes it. */
export function digits(value, most = 0) {
  const tag = language() === "zh" ? "zh-CN" : "en";
  return value.toLocaleString(tag, { maximumFractionDigits: most });
}

/** Calls a function whenever the language changes. */
export function onLanguage(told) {
  heard.add(told);
}

export function speak(chosen) {
  document.documentElement.lang = chosen;
  try {
    localStorage.setItem("language", chosen);
  } catch {
    // Then it is as before when the page is opened again.
  }
  translate(document);
  for (const told of heard) told();
}

/** Puts words where index.html says which: data-say its text, data-label its name, data-hint a placeholder. */
export function translate(root) {
  for (const one of root.querySelectorAll("[data-say]")) one.textContent = say(one.dataset.say);
  for (const one of root.querySelectorAll("[data-label]")) one.setAttribute("aria-label", say(one.dataset.label));
  for (const one of root.querySelectorAll("[data-hint]")) one.setAttribute("placeholder", say(one.dataset.hint));
}
